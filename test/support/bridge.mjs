// The addon itself, without lib, for the tests of the bridge and the scripts they start as processes and workers.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const path = fileURLToPath(new URL('../../build/Release/chiasma.node', import.meta.url))

/** @type {import('../../typings/addon.js').Addon} */
export const addon = createRequire(import.meta.url)(path)

const columns = 256

/** A square weight for `slowPlan`, [256, 256], the identity. */
export function identity() {
  const data = new Float32Array(columns * columns)
  for (let i = 0; i < columns; ++i) data[i * columns + i] = 1
  return { name: 'identity', role: 'linear', dtype: 'float32', shape: [columns, columns], source: { data, dtype: 'float32' } }
}

/** x [rows, 256] through `steps` products with the identity; rows are counted by 'rows'. The result is x again, after a while. */
export function slowPlan(steps, rows = 256) {
  const value = (kind) => ({ dtype: 'float32', shape: [rows, columns], extent: 0, per: 1, kind })
  const values = [value('input'), { dtype: 'float32', shape: [columns, columns], kind: 'weight', weight: 0 }]
  const list = []
  for (let i = 0; i < steps; ++i) {
    values.push(value(i === steps - 1 ? 'output' : 'temporary'))
    list.push({
      op: 'linear',
      inputs: [i === 0 ? 0 : values.length - 2, 1, -1, -1],
      outputs: [values.length - 1],
      attributes: { activation: 'none', dtype: 'float32' },
    })
  }
  return { extents: [{ name: 'rows', capacity: rows }], values, steps: list, inputs: [0], outputs: [values.length - 1] }
}

/** An opened device, the identity on it, and a slow program. */
export async function slowProgram(steps, rows = 256, options = {}) {
  const device = addon.openDevice({ id: 'cpu', ...options })
  const weights = await device.loadWeights([identity()])
  return { device, weights, program: device.createProgram(slowPlan(steps, rows), weights) }
}

/** rows of 256 numbers from `first` on. */
export const ramp = (rows, first = 0) => Float32Array.from({ length: rows * columns }, (_, i) => first + (i % 1000))

export const same = (buffer, expected) => Buffer.compare(Buffer.from(buffer), Buffer.from(expected.buffer)) === 0
