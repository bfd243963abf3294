// usearch as a contender: its exact search.

import { floats } from './data.mjs'
import { peer } from './node-peers.mjs'
import { joined, serve } from './serve.mjs'

const { module: { default: usearch }, version } = await peer('usearch')

await serve(async ({ dtype, corpus, queries, count, dimensions }) => {
  const stored = values => (dtype === 'int8' ? Int8Array.from(values, value => Math.round(value * 127 * 4)) : values)
  const rows = stored(floats(corpus))
  const asked = stored(floats(queries).slice(0, count * dimensions))
  const find = () => usearch.exactSearch(rows, asked, dimensions, 10, usearch.MetricKind.Cos, 2).keys
  return {
    version,
    run: async () => (find(), count),
    outputs: async () => joined([Float32Array.from(find(), Number)], count),
  }
})
