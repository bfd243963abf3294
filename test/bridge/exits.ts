// Processes and workers that end in every way while native work is running: the right exit code, no crash, no hang.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const script = fileURLToPath(new URL('../support/bridge/exits.mjs', import.meta.url))

interface End {
  code: number | null
  signal: string | null
  output: string
  errors: string
  seconds: number
}

function play(scene: string): Promise<End> {
  return new Promise((resolve) => {
    const since = performance.now()
    const child = spawn(process.execPath, [script, scene], { env: { ...process.env, NODE_OPTIONS: '' } })
    const kill = setTimeout(() => child.kill('SIGKILL'), 60_000)
    let output = ''
    let errors = ''
    child.stdout.on('data', (data) => (output += data))
    child.stderr.on('data', (data) => (errors += data))
    child.on('close', (code, signal) => {
      clearTimeout(kill)
      resolve({ code, signal, output: output.trim(), errors, seconds: (performance.now() - since) / 1000 })
    })
  })
}

const expected: Record<string, { code: number; output?: string; errors?: RegExp }> = {
  'never-disposes': { code: 0, output: 'right' },
  'waits-for-runs': { code: 0, output: 'settled' },
  'process-exit': { code: 7 },
  'process-exit-at-once': { code: 7 },
  'process-exit-while-loading': { code: 7 },
  uncaught: { code: 1, errors: /an uncaught one/ },
  terminate: { code: 0, output: 'terminated' },
  'terminate-many': { code: 0, output: 'terminated' },
  'terminate-beside': { code: 0, output: 'right' },
  'worker-exits': { code: 0, output: 'worker ended with 3' },
}

for (const [scene, { code, output = '', errors }] of Object.entries(expected)) {
  t.test(scene, async (t) => {
    const end = await play(scene)
    t.match(end, { code, signal: null }, `ends with ${code}; stderr: ${end.errors}`)
    t.equal(end.output, output)
    if (errors) t.match(end.errors, errors)
    else t.equal(end.errors, '')
    t.ok(end.seconds < 30, `within ${end.seconds.toFixed(1)} s`)
  })
}
