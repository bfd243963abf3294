// @huggingface/transformers as a contender: as its documentation shows it, batches of 32.

import { basename, dirname } from 'node:path'
import { photos, sentences } from './data.mjs'
import { peer } from './node-peers.mjs'
import { batchesOf, joined, ofRound, partOf, serve } from './serve.mjs'

const { module: transformers, version } = await peer('@huggingface/transformers')
const { AutoProcessor, CLIPVisionModelWithProjection, env, pipeline, RawImage } = transformers

const tasks = {
  async sentences({ model, dtype, file, parts, sorted }) {
    const extract = await pipeline('feature-extraction', model, { dtype, device: 'cpu' })
    const all = sentences(file)
    const embed = async some => (await extract(some, { pooling: 'mean', normalize: true })).data
    return {
      run: async round => {
        const list = partOf(all, parts, round)
        if (sorted) list.sort((a, b) => a.length - b.length)
        for (const some of batchesOf(list, 32)) await embed(some)
        return list.length
      },
      outputs: async () => joined([await embed(all.slice(0, 64))], 64),
    }
  },

  async folder({ model, dtype, folder, count }) {
    const processor = await AutoProcessor.from_pretrained(model)
    const clip = await CLIPVisionModelWithProjection.from_pretrained(model, { dtype, device: 'cpu' })
    const files = photos(folder)
    const embed = async some => (await clip(await processor(await Promise.all(some.map(file => RawImage.read(file)))))).image_embeds.normalize(2, -1).data
    return {
      run: async round => {
        for (const some of batchesOf(ofRound(files, count, round), 32)) await embed(some)
        return count
      },
      outputs: async () => joined([await embed(files.slice(0, 32))], 32),
    }
  },
}

await serve(async job => {
  env.allowRemoteModels = false
  env.localModelPath = dirname(job.model)
  return { version, ...(await tasks[job.task]({ ...job, model: basename(job.model) })) }
})
