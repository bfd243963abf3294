// A contender is a process of its own: it answers requests of bench/peers/turns.mjs, one line of JSON each, until its input ends.
//   { "do": "run", "round": 3 }        → { "seconds", "items", "cpu" }: what was done since, repeated as often as asked at the start
//   { "do": "outputs", "file": "…" }   → { "rows", "columns" }: float32 rows written to the file, the same items for every contender
// It is started with its job as one JSON argument, and says { "ready": true, "version": "…" } when it has loaded.

import { writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/**
 * @typedef {object} Contender
 * @property {string} version
 * @property {(round: number) => Promise<number>} run does the work of a round; gives how many items that were
 * @property {() => Promise<{ data: Float32Array, rows: number }>} outputs
 */

/** @param {(job: any) => Promise<Contender>} load */
export async function serve(load) {
  const say = answer => process.stdout.write(`${JSON.stringify(answer)}\n`)
  try {
    const job = JSON.parse(process.argv[2])
    const contender = await load(job)
    say({ ready: true, version: contender.version })
    for await (const line of createInterface({ input: process.stdin })) {
      const request = JSON.parse(line)
      if (request.do === 'outputs') {
        const { data, rows } = await contender.outputs()
        writeFileSync(request.file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
        say({ rows, columns: data.length / rows })
      } else {
        const began = performance.now()
        const cpu = process.cpuUsage()
        let items = 0
        for (let repeat = 0; repeat < request.repeats; repeat++) items += await contender.run(request.round)
        const seconds = (performance.now() - began) / 1000
        const used = process.cpuUsage(cpu)
        say({ seconds, items, cpu: (used.user + used.system) / 1e6 })
      }
    }
    process.exit(0)
  } catch (error) {
    say({ error: String(error?.stack ?? error) })
    process.exit(1)
  }
}

/** Every `parts`-th of a list from the `round`-th on: rounds take turns through the whole list. */
export function partOf(list, parts, round) {
  return parts > 1 ? list.filter((_, i) => i % parts === round % parts) : list
}

/** `count` of a list from the `round`-th lot on, over and over. */
export function ofRound(list, count, round) {
  return Array.from({ length: count }, (_, i) => list[(round * count + i) % list.length])
}

/** Lists of at most `size` items in order. */
export function batchesOf(list, size) {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size))
}

/** Joins rows of float32 batches. */
export function joined(parts, rows) {
  const data = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    data.set(part, at)
    at += part.length
  }
  return { data, rows }
}
