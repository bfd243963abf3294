// onnxruntime-node as a contender, with its own choice of threads.

import { captions, floats } from './data.mjs'
import { peer } from './node-peers.mjs'
import { batchesOf, joined, serve } from './serve.mjs'

const { module: { default: ort }, version } = await peer('onnxruntime-node')

const tasks = {
  async image({ onnx, batch, file }) {
    const session = await ort.InferenceSession.create(onnx)
    const pixels = new ort.Tensor('float32', floats(file).slice(0, batch * 3 * 224 * 224), [batch, 3, 224, 224])
    const embed = async () => (await session.run({ pixel_values: pixels })).image_embeds.data
    return { run: async () => (await embed(), batch), outputs: async () => ({ data: await embed(), rows: batch }) }
  },

  /** Padded to the longest of the batch with the end token, of which the model takes the first. */
  async captions({ onnx, file }) {
    const session = await ort.InferenceSession.create(onnx)
    const batches = batchesOf(captions(file), 32).map(some => {
      const length = Math.max(...some.map(ids => ids.length))
      const ids = new BigInt64Array(some.length * length).fill(49407n)
      some.forEach((caption, row) => caption.forEach((id, i) => (ids[row * length + i] = BigInt(id))))
      return new ort.Tensor('int64', ids, [some.length, length])
    })
    const embed = async ids => (await session.run({ input_ids: ids })).text_embeds.data
    return {
      run: async () => {
        let items = 0
        for (const ids of batches) items += (await embed(ids), ids.dims[0])
        return items
      },
      outputs: async () => joined([await embed(batches[0])], batches[0].dims[0]),
    }
  },
}

await serve(async job => ({ version, ...(await tasks[job.task](job)) }))
