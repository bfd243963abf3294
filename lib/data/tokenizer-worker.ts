// One thread of tokenizer-threads.ts: makes the tokenizer it is given the description of, and answers requests.

import { parentPort, workerData } from 'node:worker_threads'
import { ChiasmaError } from '../core/errors.js'
import { makeTokenizer } from './tokenizer.js'
import type { TokenizerFiles } from './tokenizer-files.js'
import { READY, type Reply, type Request } from './tokenizer-threads.js'

const tokenizer = makeTokenizer(workerData as TokenizerFiles, { threads: 0 })

parentPort!.on('message', async ({ id, texts, options }: Request) => {
  const reply = (answer: Reply, transfer: ArrayBuffer[] = []) => parentPort!.postMessage(answer, transfer)
  try {
    const rows = await tokenizer.encodeAll(texts, options)
    const lengths = Int32Array.from(rows, row => row.length)
    const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0))
    let at = 0
    for (const row of rows) {
      ids.set(row, at)
      at += row.length
    }
    reply({ id, ids, lengths }, [ids.buffer, lengths.buffer])
  } catch (error) {
    if (!(error instanceof ChiasmaError)) throw error // ends the thread, and with it the requests
    const { message, index, field } = error as ChiasmaError & { index?: number; field?: string }
    reply({ id, error: { message, fields: { ...(index !== undefined && { index }), ...(field !== undefined && { field }) } } })
  }
})
parentPort!.postMessage(READY)
