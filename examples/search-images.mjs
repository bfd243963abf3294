// Finds the images of a folder that are nearest to a text (with a dual encoder such as CLIP) or to another image.
//   node examples/search-images.mjs MODEL FOLDER "a dog in the snow"
//   node examples/search-images.mjs MODEL FOLDER query.jpg

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Embedder, VectorIndex } from 'chiasma'

const [model, folder, query] = process.argv.slice(2)
const paths = readdirSync(folder).filter((name) => /\.(jpe?g|png|webp)$/i.test(name)).sort().map((name) => join(folder, name))

const embedder = await Embedder.fromPretrained(model)
const index = await VectorIndex.create({ dimensions: embedder.dimensions, model: await embedder.weightsHash() })
await index.add(await embedder.embedImages(paths), paths)

const [hits] = await index.search(existsSync(query) ? await embedder.embedImages([query]) : await embedder.embedTexts([query]), 5)
for (const { id, score } of hits) console.log(score.toFixed(4), id)

await index.dispose()
await embedder.dispose()
