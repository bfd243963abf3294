// Objects compiled for one instruction set hold no weak symbols and define nothing outside their namespace.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { complaints, nm, simdObjects } from '../../scripts/check-weak-symbols.mjs'

const root = fileURLToPath(new URL('../..', import.meta.url))
const build = join(root, 'build/cmake')
const skip = !existsSync(build) ? 'no build in build/cmake' : spawnSync('nm', ['--version']).error ? 'no nm on this machine' : false

t.test('no weak symbols in the simd objects', { skip }, async (t) => {
  const objects = simdObjects(build)
  const sources = readdirSync(join(root, 'native/cpp/cpu/simd')).filter((name) => name.endsWith('.cpp'))
  const isas = new Set(objects.map(({ isa }) => isa))
  if (process.arch === 'x64') t.same([...isas].sort(), ['amx', 'avx2', 'avx512', 'avx512_bf16', 'avx512_vnni', 'portable'])
  for (const isa of isas) {
    // These add to avx512 for the matrix multiply, those with products of bfloat16 for attention too.
    const added = ['gemm.cpp', 'simd_kernels.cpp']
    const compiled = isa === 'amx' || isa === 'avx512_bf16' ? [...added, 'attention.cpp'] : isa === 'avx512_vnni' ? added : sources
    for (const source of compiled) {
      const object = objects.find(({ isa: its, file }) => its === isa && /[^\\/]+$/.exec(file)![0].startsWith(`${source}.`))
      if (t.ok(object, `${source} is compiled for ${isa}`)) t.same(complaints(isa, nm(object!.file)), [], `${source} for ${isa}`)
    }
  }
})

t.test('the check finds what it looks for', async (t) => {
  const symbols = [
    '0000000000000000 R _ZN7chiasma3cpu6avx5127kernelsE',
    '0000000000000000 W _ZSt4sqrtf',
    '                 U memcpy',
    '0000000000000010 t _ZN7chiasma3cpu6avx512L3runEv',
    '0000000000000000 V _ZTI3abc',
    '0000000000000000 u _ZZ3getvE5value',
    '                 w __gmon_start__',
    '0000000000000000 T _ZN7chiasma3cpu4multEv',
  ].join('\n')
  t.same(complaints('avx512', symbols), [
    'weak symbol _ZSt4sqrtf',
    'weak symbol _ZTI3abc',
    'weak symbol _ZZ3getvE5value',
    'weak symbol __gmon_start__',
    'symbol _ZN7chiasma3cpu4multEv outside the namespace chiasma::cpu::avx512',
  ])
})
