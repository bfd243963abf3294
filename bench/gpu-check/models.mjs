// Whole models on a device, beside the references that torch_bench.py has left: `node models.mjs FOLDER OUT DEVICE DTYPE [SECONDS]`.
// For each folder with a case.json: cosine with PyTorch's float32 results, the same bits alone and in a batch, and the time of a batch and of one item, from
// host memory to host memory. One line of JSON for each figure.
import { appendFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AutoModel, Embedder, Tensor } from './lib/index.js'

const [folder, out, device, dtype, seconds = '1e9'] = process.argv.slice(2)
const deadline = performance.now() + Number(seconds) * 1000
const simulated = device === 'cuda-sim'
writeFileSync(out, '')
const emit = (figures) => appendFileSync(out, `${JSON.stringify(figures)}\n`)
let failures = 0

async function microseconds(call) {
  for (let i = 0; i < (simulated ? 1 : 3); i++) await call() // the first makes plans, the second records graphs
  const times = []
  for (let i = 0; i < (simulated ? 1 : 25) && (i < 3 || performance.now() < deadline); i++) {
    const begin = performance.now()
    await call()
    times.push((performance.now() - begin) * 1000)
  }
  times.sort((a, b) => a - b)
  const part = (share) => times[Math.round(share * (times.length - 1))]
  return { microseconds: part(0.5), low: part(0.1), high: part(0.9) }
}

const normalised = (data, width) => {
  const rows = Float32Array.from(data)
  for (let at = 0; at < rows.length; at += width) {
    const row = rows.subarray(at, at + width)
    const length = Math.hypot(...row)
    for (let i = 0; i < width; i++) row[i] /= length
  }
  return rows
}

async function tryModel(path) {
  const { name, kind, shape, reference: [few, width] } = JSON.parse(readFileSync(join(path, 'case.json'), 'utf8'))
  const bytes = readFileSync(join(path, 'inputs.bin'))
  const data = kind === 'image' ? new Uint8Array(bytes) : new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const size = data.length / shape[0]
  const inputs = (count) => new Tensor(kind === 'image' ? 'uint8' : 'int32', data.slice(0, count * size), [count, ...shape.slice(1)])
  const loading = performance.now()
  const owner = kind === 'image' ? await Embedder.fromPretrained(path, { device, dtype }) : await AutoModel.fromPretrained(path, { device, dtype })
  emit({ model: name, load: performance.now() - loading, device: owner.device, dtype: owner.dtype })
  const embed = async (count) => {
    if (kind === 'image') return (await owner.embedImages(inputs(count), { batchSize: count })).data
    return normalised((await owner.forward({ input_ids: inputs(count) }, { outputs: ['text_embeds'] })).text_embeds.data, width)
  }
  const batch = shape[0]
  const got = await embed(batch)
  const reference = readFileSync(join(path, 'reference.bin'))
  const expected = new Float32Array(reference.buffer, reference.byteOffset, reference.length / 4)
  let cosine = 1
  for (let row = 0; row < few; row++) {
    let dot = 0
    for (let i = 0; i < width; i++) dot += got[row * width + i] * expected[row * width + i]
    cosine = Math.min(cosine, Number.isNaN(dot) ? -1 : dot)
  }
  const alone = await embed(1)
  const same = Buffer.from(alone.buffer, alone.byteOffset, width * 4).equals(Buffer.from(got.buffer, got.byteOffset, width * 4))
  emit({ model: name, cosine, same })
  if (cosine < 0.999 || !same) failures++
  console.log(`${cosine < 0.999 || !same ? 'not ok' : 'ok'} ${name}: cosine with PyTorch in float32 ${cosine.toFixed(6)}, ${same ? 'the same bits' : 'other bits'} alone`)
  emit({ model: name, batch, variant: 'chiasma', ...(await microseconds(() => embed(batch))) })
  emit({ model: name, batch: 1, variant: 'chiasma', ...(await microseconds(() => embed(1))) })
  await owner.dispose()
}

for (const name of readdirSync(folder).sort()) {
  const path = join(folder, name)
  if (!existsSync(join(path, 'case.json'))) continue
  try {
    if (performance.now() > deadline) throw new Error('no time left')
    await tryModel(path)
  } catch (error) {
    failures++
    console.log(`not ok ${name}: ${error.stack ?? error}`)
  }
}
process.exit(failures ? 1 : 0)
