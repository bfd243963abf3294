// How near texts are to each other, by cosine similarity.
//   node examples/similar-texts.mjs MODEL "A man is dancing." "Someone dances." "The stock market fell."

import { Embedder, ops } from 'chiasma'

const [model, ...texts] = process.argv.slice(2)
const embedder = await Embedder.fromPretrained(model, { dtype: 'f32' })
const embeddings = await embedder.embedTexts(texts)
const { data } = await ops.cosineSimilarity(embeddings, embeddings)
texts.forEach((text, i) => console.log(...Array.from(data.subarray(i * texts.length, (i + 1) * texts.length), (x) => x.toFixed(4).padStart(7)), ` ${text}`))
await embedder.dispose()
