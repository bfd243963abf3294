// Contenders take turns: each is a process of its own, stopped while it is not its turn, and every round asks each once, in another order.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { folder, python } from './setup.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))

class Process {
  constructor({ program, job, env }) {
    const command = program.endsWith('.py') ? python : process.execPath
    this.child = spawn(command, [join(here, program), JSON.stringify(job)], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, HF_HUB_OFFLINE: '1', TOKENIZERS_PARALLELISM: 'true', ...env },
    })
    this.errors = ''
    this.child.stderr.on('data', text => (this.errors = (this.errors + text).slice(-4000)))
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  async answer() {
    for (;;) {
      const { value, done } = await this.lines.next()
      if (done) throw new Error(`it ended: ${this.errors.trim().split('\n').slice(-3).join(' ')}`)
      if (!value.startsWith('{')) continue
      const answer = JSON.parse(value)
      if (answer.error) throw new Error(answer.error)
      return answer
    }
  }

  /** One request while all others stand still. */
  async ask(request) {
    this.child.kill('SIGCONT')
    if (request) this.child.stdin.write(`${JSON.stringify(request)}\n`)
    const answer = await this.answer()
    this.child.kill('SIGSTOP')
    return answer
  }

  close() {
    this.child.kill('SIGKILL')
  }
}

export const median = values => {
  const sorted = [...values].sort((a, b) => a - b)
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.floor(sorted.length / 2)]) / 2
}

/**
 * @param contenders { name, dtype, program, job, env, needs }
 * @returns for each { rates, cpu, version, outputs } or { missing: why }
 */
export async function takeTurns(contenders, { rounds, seconds, missing }) {
  const running = []
  const results = []
  try {
    for (const contender of contenders) {
      const result = { ...contender, rates: [], cores: [] }
      results.push(result)
      if (contender.needs && missing[contender.needs]) {
        result.missing = `not installed: ${missing[contender.needs]}`
        continue
      }
      const process = new Process(contender)
      try {
        result.version = (await process.ask()).version
        const first = await process.ask({ do: 'run', round: 0, repeats: 1 })
        const again = first.seconds < seconds ? await process.ask({ do: 'run', round: 0, repeats: Math.max(1, Math.round(seconds / 4 / first.seconds)) }) : first
        const one = again === first ? first.seconds : again.seconds / Math.max(1, Math.round(seconds / 4 / first.seconds))
        result.repeats = Math.max(1, Math.round(seconds / one))
        running.push({ process, result })
      } catch (error) {
        result.missing = error.message.split('\n').slice(0, 4).join(' ')
        process.close()
      }
    }
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < running.length; i++) {
        const { process, result } = running[(i + round) % running.length]
        const { seconds, items, cpu } = await process.ask({ do: 'run', round, repeats: result.repeats })
        result.rates.push(items / seconds)
        result.cores.push(cpu / seconds)
      }
    }
    for (const { process, result } of running) {
      if (result.job.outputs === false) continue
      const file = join(folder, 'outputs.f32')
      const { rows, columns } = await process.ask({ do: 'outputs', file })
      const bytes = readFileSync(file)
      result.outputs = { rows, columns, data: new Float32Array(bytes.buffer, bytes.byteOffset, rows * columns) }
    }
  } finally {
    for (const { process } of running) process.close()
  }
  return results
}
