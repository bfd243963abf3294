// One embedding by chiasma, in a process of its own: MODEL DTYPE PHOTO.
import { Embedder } from '../../dist/index.js'

const [model, dtype, photo] = process.argv.slice(2)
const embedder = await Embedder.fromPretrained(model, { device: 'cpu', dtype })
const { data } = await embedder.embedImages([photo])
console.log(JSON.stringify({ embedding: [...data] }))
