// Stands before nvcc when CMake compiles the CUDA library: what the compiler makes of a source's kernels is kept, so that check:cuda and
// build:cuda-page need not compile it again.
//   node scripts/cuda-launcher.mjs NVCC ARGUMENTS…     CUDACXX names the same nvcc
import { spawn } from 'node:child_process'
import { basename, resolve } from 'node:path'
import { compilationOf, keepKernels } from './cuda-kernels.mjs'
import { findToolkit } from './cuda-toolkit.mjs'

const [command, ...args] = process.argv.slice(2)
const after = (option) => args[args.indexOf(option) + 1]
const source = after('-c')
const isOurs = args.includes('-c') && /native\/cuda\/\w+\.cu$/.test(source)
const toolkit = isOurs && findToolkit()
const architectures = args.flatMap((argument) => /code=\[([^\]]+)\]/.exec(argument)?.[1].split(',') ?? []).filter((name) => name.startsWith('sm_'))
const compilations = isOurs ? architectures.map((architecture) => compilationOf(toolkit, basename(source), architecture)) : []

const child = spawn(command, isOurs ? [...args, '-Xptxas=-v'] : args, { stdio: ['inherit', 'inherit', isOurs ? 'pipe' : 'inherit'] })
let words = ''
child.stderr?.setEncoding('utf8').on('data', (text) => (words += text))
const status = await new Promise((done, failed) => child.on('error', failed).on('close', done))
const isInfo = /^ptxas info|^ +\d+ bytes stack frame/
process.stderr.write(words.split(/(?<=\n)/).filter((line) => !isInfo.test(line)).join(''))
process.exitCode = status ?? 1

try {
  for (const compilation of status === 0 ? compilations : []) await keepKernels(toolkit, compilation, resolve(after('-o')), words)
} catch (error) {
  console.error(`nothing is kept of ${source}: ${error.message}`) // the object is there all the same
}
