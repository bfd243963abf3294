// What needs no GPU of the CUDA build: which compiler it takes, that only `build:cuda` builds it, and the gates that the compiled kernels go through.

import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { complaints, hot, type Kernel, parseInstructions, parseName, parseResources, plain } from '../../scripts/cuda-kernels.mjs'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const exec = promisify(execFile)

async function folderOf(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'chiasma-cuda-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function program(path: string, output: string): Promise<string> {
  await writeFile(path, `#!/bin/sh\necho "${output}"\n`)
  await chmod(path, 0o755)
  return path
}

t.test('build:cuda says which compiler it found', async (t) => {
  const folder = await folderOf(t)
  const older = await program(join(folder, 'nvcc'), 'Cuda compilation tools, release 12.9, V12.9.41')
  const other = await program(join(folder, 'other'), 'hello')
  const build = (CUDACXX: string) => exec(process.execPath, ['scripts/build-cuda.mjs'], { cwd: root, env: { ...process.env, CUDACXX } })
  await t.rejects(build(older), { code: 1, stderr: `build:cuda: CUDACXX is ${older}, of CUDA 12.9; expected 13.0 or later\n` })
  await t.rejects(build(other), { code: 1, stderr: `build:cuda: CUDACXX is ${other}, which is no nvcc; expected one of CUDA 13.0 or later\n` })
  await t.rejects(build(join(folder, 'none')), { code: 1, stderr: /CUDACXX is .*none, which is no nvcc \(.*ENOENT\)/ })
})

t.test('npm ci builds no CUDA, whatever nvcc lies on the PATH', async (t) => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  for (const name of ['preinstall', 'install', 'postinstall', 'prepublish', 'preprepare', 'prepare', 'postprepare']) t.notMatch(scripts[name] ?? '', /cuda/i, name)
  const folder = await folderOf(t)
  await program(join(folder, 'nvcc'), 'Cuda compilation tools, release 13.0, V13.0.88')
  const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${folder}:${process.env['PATH']}` }
  delete env['CUDACXX']
  await exec('cmake', ['-S', root, '-B', join(folder, 'addon')], { env })
  t.match(await readFile(join(folder, 'addon/CMakeCache.txt'), 'utf8'), /^CHIASMA_CUDA:BOOL=OFF$/m)
})

t.test('plain CMake needs no Node', async (t) => {
  const folder = await folderOf(t)
  const bin = join(folder, 'bin')
  await mkdir(bin)
  for (const name of ['cmake', 'make', 'c++', 'g++', 'cc', 'gcc', 'as', 'ld', 'ar', 'ranlib', 'nm', 'strip', 'objdump', 'uname', 'sh']) {
    const found = await exec('sh', ['-c', `command -v ${name}`]).catch(() => undefined)
    if (found) await symlink(found.stdout.trim(), join(bin, name))
  }
  const build = join(folder, 'build')
  await exec('cmake', ['-S', root, '-B', build, '-DCHIASMA_ADDON=OFF'], { env: { PATH: bin } })
  const { stdout } = await exec('cmake', ['--build', build, '--target', 'help'], { env: { PATH: bin } })
  for (const target of ['chiasma_native', 'chiasma_native_tests']) t.match(stdout, new RegExp(`\\b${target}\\b`))
})

t.test("the compiler's words are understood", (t) => {
  t.strictSame(
    parseName('void chiasma::cuda::(anonymous namespace)::gemm_mma_kernel<signed char, chiasma::cuda::(anonymous namespace)::Shape<64, 64, 2, 2, 4> >(chiasma::cuda::Gemm, int)'),
    { name: 'gemm_mma_kernel', arguments: ['signed char', 'Shape<64, 64, 2, 2, 4>'] },
  )
  t.strictSame(parseName('chiasma::cuda::(anonymous namespace)::scatter_check_kernel(chiasma::cuda::Scatter)'), { name: 'scatter_check_kernel', arguments: [] })
  const words = [
    "ptxas info    : Compiling entry function '_Z1a' for 'sm_90a'",
    'ptxas info    : Function properties for _Z1a',
    '    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads',
    'ptxas info    : Used 32 registers, used 1 barriers',
    "ptxas info    : Compiling entry function '_Z1a' for 'sm_80'",
    'ptxas info    : Function properties for _Z1a',
    '    24 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads',
    'ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size, 8192 bytes smem, 436 bytes cmem[0]',
    "ptxas info    : Compiling entry function '_Z1b' for 'sm_80'",
    'ptxas info    : Function properties for _Z1b',
    '    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads',
    'ptxas info    : Used 16 registers, used 0 barriers',
  ]
  t.strictSame(parseResources(words.join('\n'), 'sm_90a'), { _Z1a: { registers: 32, stack: 0, spills: 0, staticShared: 0 } })
  t.strictSame(parseResources(words.join('\n'), 'sm_80'), {
    _Z1a: { registers: 255, stack: 24, spills: 20, staticShared: 8192 },
    _Z1b: { registers: 16, stack: 0, spills: 0, staticShared: 0 },
  })
  const disassembly = [
    '\t\tFunction : _Z1a',
    '        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;                      /* 0x0000000402047981 */',
    '                                                                                          /* 0x000fe400078e00ff */',
    '        /*0010*/               @P2 STG.E.U16 [R2.64+0x6], R7 ;                             /* 0x0 */',
    '        /*0020*/              @!UP0 STL [R1], R7 ;                                         /* 0x0 */',
    '\t\tFunction : _Z1b',
    '        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;                      /* 0x0 */',
  ]
  t.strictSame(parseInstructions(disassembly.join('\n')), { _Z1a: { 'LDG.E.128.CONSTANT': 1, 'STG.E.U16': 1, STL: 1 }, _Z1b: { 'LDG.E.128.CONSTANT': 1 } })
  t.end()
})

t.test('the gates catch what they are for', (t) => {
  const all = { 'HMMA.16816.F32.BF16': 9, 'IMMA.16832.S8.S8': 9, 'LDSM.16.M88.4': 9, 'LDGSTS.E.BYPASS.128.ZFILL': 9, 'LDG.E.128.CONSTANT': 99, 'STG.E.128': 99, 'STG.E.64': 9 }
  const shapes: Record<string, string[]> = { gemm_mma_kernel: ['bf16', 'Shape<64, 64, 2, 2, 4>'], attention_mma_kernel: ['bf16', '64'], attention_float_kernel: ['1'] }
  const kernels = [...Object.keys(hot), ...Object.keys(plain)].map(
    (name): Kernel => ({
      name, arguments: shapes[name] ?? ['float', 'bf16'], source: 'a.cu', architecture: 'sm_80', registers: 64, stack: 0, spills: 0, staticShared: 0, threads: 128, counts: name in hot ? all : {},
    }),
  )
  const changed = (name: string, change: Partial<Kernel>) => complaints(kernels.map((kernel) => (kernel.name === name ? { ...kernel, ...change } : kernel)))
  const without = (pattern: RegExp) => Object.fromEntries(Object.entries(all).filter(([opcode]) => !pattern.test(opcode)))
  const only = (found: string[], pattern: RegExp) => {
    t.equal(found.length, 1, found.join('; '))
    t.match(found[0], pattern)
  }
  t.strictSame(complaints(kernels), [])
  only(changed('gemm_mma_kernel', { spills: 8 }), /gemm_mma_kernel<bf16, Shape<64, 64, 2, 2, 4>> spills 8 bytes/)
  only(changed('layer_norm_kernel', { stack: 16 }), /stack frame of 16/)
  only(changed('attention_mma_kernel', { counts: { ...all, 'LDL.64': 2 } }), /local memory: 2 × LDL.64/)
  only(changed('gemm_mma_kernel', { counts: without(/HMMA/) }), /0 × HMMA/)
  only(changed('gemm_mma_kernel', { arguments: ['signed char', 'Shape<16, 16, 1, 4, 4>'], counts: without(/IMMA/) }), /0 × IMMA/)
  only(changed('attention_mma_kernel', { counts: without(/LDSM/) }), /0 × LDSM/)
  only(changed('gemm_mma_kernel', { counts: { ...without(/STG.E.128/), 'STG.E.128': 15, 'STG.E': 64 } }), /15 × STG.128; expected 16/)
  only(changed('softmax_kernel', { counts: { ...without(/LDG/), 'LDG.E.64': 9 } }), /0 × LDG.128; expected 2/)
  only(changed('scatter_kernel', { counts: { 'HMMA.16816.F32': 1 } }), /listed as plain/)
  only(complaints([...kernels, { ...kernels[0]!, name: 'new_kernel' }]), /new_kernel.* is in neither list/)
  only(complaints(kernels.filter(({ name }) => name !== 'softmax_kernel')), /softmax_kernel is listed .* no source has it/)
  t.end()
})
