// Makes a CUDA toolkit without a GPU, a driver or root: NVIDIA's wheels from PyPI, pinned with their hashes in cuda-requirements.txt, into
// build/tools/cuda. Does nothing where that is there already. Linux on x86-64; 280 MB. Needs python3 with pip.
//   node scripts/cuda-toolkit.mjs
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const requirements = join(root, 'scripts/cuda-requirements.txt')
const folder = join(root, 'build/tools/cuda')
const stamp = join(folder, 'requirements.txt')

/** The oldest toolkit that the kernels are written for. */
export const oldest = [13, 0]

function isMade() {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(requirements, 'utf8')
}

function make() {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('the wheels are for Linux on x86-64; name a CUDA compiler with CUDACXX')
  const fresh = `${folder}.new`
  for (const path of [fresh, folder]) rmSync(path, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  const options = ['--quiet', '--disable-pip-version-check', '--no-deps', '--require-hashes', '--only-binary=:all:', '--target', fresh, '-r', requirements]
  const { status, error } = spawnSync('python3', ['-m', 'pip', 'install', ...options], {
    stdio: 'inherit',
    env: { ...process.env, PIP_ROOT_USER_ACTION: 'ignore' },
  })
  if (error || status !== 0) throw new Error(`python3 -m pip could not install the CUDA toolkit${error ? `: ${error.message}` : ''}`)
  writeFileSync(join(fresh, 'requirements.txt'), readFileSync(requirements))
  renameSync(fresh, folder)
}

/**
 * The toolkit to build with: the compiler that CUDACXX names, or the one of build/tools/cuda.
 * `env` is what CMake and nvcc need to find it, `libraries` a folder that linkers do not find by themselves. Throws if CUDACXX is no nvcc of 13.0 or later.
 *
 * @returns {{ nvcc: string, bin: string, version: string, libraries?: string, env: Record<string, string> } | undefined} undefined where there is none
 */
export function findToolkit() {
  const named = process.env.CUDACXX
  const made = join(folder, 'nvidia/cu13')
  if (!named && !isMade()) return undefined
  const nvcc = named ?? join(made, 'bin/nvcc')
  const { stdout, error } = spawnSync(nvcc, ['--version'], { encoding: 'utf8' })
  const version = /release (\d+\.\d+)/.exec(stdout ?? '')?.[1]
  const where = named ? `CUDACXX is ${named}` : nvcc
  if (!version) throw new Error(`${where}, which is no nvcc${error ? ` (${error.message})` : ''}; expected one of CUDA ${oldest.join('.')} or later`)
  const [major, minor] = version.split('.').map(Number)
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    throw new Error(`${where}, of CUDA ${version}; expected ${oldest.join('.')} or later`)
  }
  if (named) return { nvcc, bin: dirname(nvcc), version, env: { CUDACXX: nvcc } }
  const libraries = join(made, 'lib')
  const LIBRARY_PATH = [libraries, process.env.LIBRARY_PATH].filter(Boolean).join(delimiter)
  return { nvcc, bin: dirname(nvcc), version, libraries, env: { CUDACXX: nvcc, LIBRARY_PATH } }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    if (!isMade()) make()
    const toolkit = findToolkit()
    console.log(`CUDA ${toolkit.version}: ${toolkit.nvcc}`)
  } catch (error) {
    console.error(`cuda:toolkit: ${error.message}`)
    process.exit(1)
  }
}
