// Runs the command line as users do, from dist, which is compiled anew when lib is newer.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const main = join(root, 'dist/cli/main.js')

export interface CliResult {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Starts `chiasma ARGUMENTS`; the promise has what it printed once it ended. `stdout`: a file instead; `stdin`: one, too. */
export function startCli(args: readonly string[], env: NodeJS.ProcessEnv = {}, stdout: 'pipe' | number = 'pipe', stdin: 'ignore' | number = 'ignore'): { child: ChildProcess; result: Promise<CliResult> } {
  buildDist()
  const child = spawn(process.execPath, [main, ...args], { env: { ...cleanEnv(), ...env }, stdio: [stdin, stdout, 'pipe'] })
  let printed = ''
  let stderr = ''
  child.stdout?.on('data', (chunk) => (printed += chunk))
  child.stderr!.on('data', (chunk) => (stderr += chunk))
  const result = new Promise<CliResult>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout: printed, stderr }))
  })
  return { child, result }
}

export function cli(...args: string[]): Promise<CliResult> {
  return startCli(args).result
}

function cleanEnv(): NodeJS.ProcessEnv {
  const env = { ...process.env }
  delete env['NODE_OPTIONS']
  return env
}

let built = false
/** Milliseconds that no build takes. */
const STALE = 120_000

/** Compiles dist if lib is newer. */
export function buildDist(): void {
  if (built) return
  // Test files run side by side; one compiles, the others wait for it.
  const lock = join(root, 'build/.dist-lock')
  mkdirSync(dirname(lock), { recursive: true })
  for (;;) {
    try {
      mkdirSync(lock)
      break
    } catch {
      const since = modified(lock)
      if (since > 0 && Date.now() - since > STALE) rmSync(lock, { recursive: true, force: true }) // whoever made it was killed
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
    }
  }
  try {
    if (newest(join(root, 'lib')) > modified(main)) execFileSync(process.execPath, [join(root, 'scripts/build-ts.mjs')], { stdio: 'inherit' })
  } finally {
    rmdirSync(lock)
  }
  built = true
}

function newest(folder: string): number {
  return Math.max(...readdirSync(folder, { recursive: true, withFileTypes: true }).map((entry) => modified(join(entry.parentPath, entry.name))))
}

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}
