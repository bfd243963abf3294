// chiasma as a contender.

import { readFileSync } from 'node:fs'
import { AutoModel, Embedder, Tensor, VectorIndex } from '../../dist/index.js'
import { captions, floats, photos, sentences } from './data.mjs'
import { batchesOf, joined, ofRound, partOf, serve } from './serve.mjs'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url)))

const tasks = {
  /** Pixels that are ready to embeddings, `batch` at a time. */
  async image({ model, dtype, batch, isa, file }) {
    const clip = await AutoModel.fromPretrained(model, { device: 'cpu', dtype, isa })
    const pixels = floats(file)
    const size = 3 * 224 * 224
    const inputs = new Tensor('float32', pixels.subarray(0, batch * size), [batch, 3, 224, 224])
    const embed = async () => (await clip.forward({ pixel_values: inputs }, { outputs: ['image_embeds'] })).image_embeds.data
    return { run: async () => (await embed(), batch), outputs: async () => ({ data: await embed(), rows: batch }) }
  },

  /** Token ids of mixed lengths to embeddings, 32 at a time. */
  async captions({ model, dtype, isa, file }) {
    const clip = await AutoModel.fromPretrained(model, { device: 'cpu', dtype, isa })
    const batches = batchesOf(captions(file), 32).map(some => some.map(ids => Int32Array.from(ids)))
    const embed = async some => clip.textEncoder.encode(some)
    return {
      run: async () => {
        let items = 0
        for (const some of batches) items += (await embed(some), some.length)
        return items
      },
      outputs: async () => joined([await embed(batches[0])], batches[0].length),
    }
  },

  /** Sentences to embeddings. */
  async sentences({ model, dtype, isa, file, parts }) {
    const embedder = await Embedder.fromPretrained(model, { device: 'cpu', dtype, isa })
    const all = sentences(file)
    return {
      run: async round => (await embedder.embedTexts(partOf(all, parts, round))).dims[0],
      outputs: async () => joined([(await embedder.embedTexts(all.slice(0, 64))).data], 64),
    }
  },

  /** Image files to embeddings, in a stream: other ones each round. */
  async folder({ model, dtype, folder, isa, count }) {
    const embedder = await Embedder.fromPretrained(model, { device: 'cpu', dtype, isa })
    const files = photos(folder)
    return {
      run: async round => {
        let items = 0
        for await (const { error } of embedder.embedStream(ofRound(files, count, round))) {
          if (error) throw error
          items++
        }
        return items
      },
      outputs: async () => joined([(await embedder.embedImages(files.slice(0, 32))).data], 32),
    }
  },

  /** The same files through decoding and preprocessing alone. */
  async decode({ model, folder, count }) {
    const embedder = await Embedder.fromPretrained(model, { device: 'cpu' })
    const files = photos(folder)
    return {
      run: async round => {
        const some = ofRound(files, count, round)
        let next = 0
        const work = async () => {
          while (next < some.length) await embedder.preprocess(some[next++])
        }
        await Promise.all(Array.from({ length: 16 }, work))
        return some.length
      },
    }
  },

  /** Pixels as the stream gives them to the model, in batches of 32. */
  async tower({ model, dtype, isa, count }) {
    const embedder = await Embedder.fromPretrained(model, { device: 'cpu', dtype, isa })
    const { height, width } = embedder.model.imageEncoder.size
    const pixels = new Tensor('uint8', new Uint8Array(32 * height * width * 3).map((_, i) => (i * 31) % 251), [32, height, width, 3])
    return {
      run: async () => {
        for (let done = 0; done < count; done += 64) await Promise.all([embedder.embedImages(pixels), embedder.embedImages(pixels)])
        return 64 * Math.ceil(count / 64)
      },
    }
  },

  /** The 10 nearest of each query. */
  async search({ dtype, corpus, queries, count, dimensions }) {
    const index = await VectorIndex.create({ dimensions, dtype, device: 'cpu' })
    const rows = floats(corpus)
    await index.add(new Tensor('float32', rows, [rows.length / dimensions, dimensions]))
    const asked = new Tensor('float32', floats(queries).subarray(0, count * dimensions), [count, dimensions])
    const find = () => index.search(asked, 10)
    return {
      run: async () => (await find()).length,
      outputs: async () => joined((await find()).map(hits => Float32Array.from(hits, ({ index }) => index)), count),
    }
  },
}

await serve(async job => ({ version, ...(await tasks[job.task](job)) }))
