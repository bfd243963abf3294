// One embedding by @huggingface/transformers, in a process of its own: FOLDER MODEL DTYPE PHOTO.
import { peer } from './node-peers.mjs'

const { module } = await peer('@huggingface/transformers')
const { AutoProcessor, CLIPVisionModelWithProjection, env, RawImage } = module
const [folder, model, dtype, photo] = process.argv.slice(2)
env.allowRemoteModels = false
env.localModelPath = folder
const [processor, clip] = await Promise.all([AutoProcessor.from_pretrained(model), CLIPVisionModelWithProjection.from_pretrained(model, { dtype, device: 'cpu' })])
const { image_embeds: embeds } = await clip(await processor(await RawImage.read(photo)))
console.log(JSON.stringify({ embedding: [...embeds.data] }))
