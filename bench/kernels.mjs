// `npm run bench`: builds the native benchmarks and runs them: the processor's peaks, then the matrix multiply at the models' shapes as a share
// of them, for each instruction set that is named (default: the best there is), then the families (families.mjs) on the CPU.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const build = 'build/native'

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (error || status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}`)
}

run('cmake', ['-S', '.', '-B', build, '-DCHIASMA_ADDON=OFF', '-DCHIASMA_BENCH=ON', '-DCMAKE_BUILD_TYPE=Release'])
run('cmake', ['--build', build, '--parallel', '--target', 'chiasma_bench_peak', 'chiasma_bench_gemm'])
run(`${build}/chiasma_bench_peak`, [])
for (const isa of process.argv.length > 2 ? process.argv.slice(2) : [undefined]) run(`${build}/chiasma_bench_gemm`, isa ? [isa] : [])
run(process.execPath, ['bench/families.mjs', '--device', 'cpu'])
