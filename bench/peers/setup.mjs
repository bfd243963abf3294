// Installs the peers into bench/.peers, where git does not look, and nothing anywhere else: Node packages into node/, a Python environment
// into python/. A peer that cannot be installed is left out, with the reason.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const folder = fileURLToPath(new URL('../.peers', import.meta.url))
export const python = join(folder, 'python/bin/python')
const root = fileURLToPath(new URL('../..', import.meta.url))
const requirements = join(root, 'bench/peers/requirements.txt')

/** simsimd compares two vectors a call and searches nothing, so it is not among them: usearch searches with the same kernels. */
const nodePeers = ['@huggingface/transformers@4.3.1', 'onnxruntime-node@1.30.0', 'usearch@2.26.2']

const call = (command, args, options) => {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'inherit', 'pipe'], ...options })
  if (status === 0) return undefined
  const lines = (error?.message ?? stderr ?? '').trim().split('\n')
  return lines.findLast(line => /error/i.test(line)) ?? lines.at(-1) ?? `exit code ${status}`
}

/** @returns {Record<string, string>} why peers are missing, by the name of their package */
export function install() {
  const wanted = JSON.stringify([nodePeers, readFileSync(requirements, 'utf8')])
  const stamp = join(folder, 'installed.json')
  if (existsSync(stamp)) {
    const { wanted: had, missing } = JSON.parse(readFileSync(stamp, 'utf8'))
    if (had === wanted) return missing
  }
  mkdirSync(join(folder, 'node'), { recursive: true })
  writeFileSync(join(folder, 'node/package.json'), '{ "private": true }')
  const missing = {}
  for (const name of nodePeers) {
    console.error(`installing ${name}`)
    // onnxruntime-node would fetch its GPU libraries.
    const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip', ONNXRUNTIME_NODE_INSTALL_CUDA: 'skip' }
    const failed = call('npm', ['install', '--silent', '--no-audit', '--no-fund', '--save-exact', name], { cwd: join(folder, 'node'), env })
    if (failed) missing[name.replace(/(?<=.)@.*/, '')] = failed
  }
  const failed = existsSync(python) ? undefined : call('python3', ['-m', 'venv', join(folder, 'python')])
  for (const name of readFileSync(requirements, 'utf8').split('\n').filter(line => /^\w/.test(line))) {
    console.error(`installing ${name}`)
    const why = failed ?? call(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-c', requirements, name])
    if (why) missing[name.replace(/==.*/, '')] = why
  }
  writeFileSync(stamp, JSON.stringify({ wanted, missing }))
  return missing
}

/** Makes what the peers load, from the folder that holds tools, models and data. @returns {string} the folder of the models */
export function prepare(shared) {
  const models = join(folder, 'models')
  mkdirSync(models, { recursive: true })
  const failed = call(python, [join(root, 'bench/peers/prepare.py'), shared, models])
  if (failed) throw new Error(`prepare.py: ${failed}`)
  return models
}

/** Compiles and runs bench/peak.cpp. @returns what it prints */
export function measurePeak(...megabytes) {
  const build = join(root, 'build/bench')
  const program = join(build, 'peak')
  mkdirSync(build, { recursive: true })
  const source = join(root, 'bench/peak.cpp')
  const failed = call(process.env.CXX ?? 'c++', ['-O3', '-std=c++20', '-pthread', source, '-o', program])
  if (failed) throw new Error(`bench/peak.cpp: ${failed}`)
  const { stdout } = spawnSync(program, megabytes.map(String), { encoding: 'utf8' })
  rmSync(program)
  return JSON.parse(stdout)
}
