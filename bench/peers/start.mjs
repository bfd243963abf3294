// What is measured on whole processes: the time from their start to the first embedding, and the memory of a long folder run.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { photoFolder, photos } from './data.mjs'

const here = fileURLToPath(new URL('.', import.meta.url))

/** Runs a script to its end; gives what it says, and the seconds until it said so. */
function time(script, args) {
  return new Promise((resolve, reject) => {
    const began = performance.now()
    const child = spawn(process.execPath, [join(here, script), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    let errors = ''
    let seconds
    child.stdout.on('data', text => {
      said += text
      if (said.includes('\n')) seconds ??= (performance.now() - began) / 1000
    })
    child.stderr.on('data', text => (errors += text))
    child.on('close', code => (code === 0 ? resolve({ seconds, said: JSON.parse(said) }) : reject(new Error(errors.trim().split('\n').slice(-4).join(' ')))))
  })
}

/** Weights of a safetensors file, in bytes. */
function weightBytes(file) {
  const bytes = readFileSync(file)
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString())
  return Object.values(header).reduce((sum, { data_offsets: range }) => sum + (range ? range[1] - range[0] : 0), 0)
}

export function processStages({ shared, models, data, photos: count }) {
  const model = join(models, 'clip-vit-base-patch32')
  const source = join(shared, 'data/photos')
  const first = {
    name: 'first-embedding',
    section: 'start',
    title: 'First embedding of a photo after the start of the process, ViT-B/32, warm file cache',
    unit: 'starts/s',
    reference: 'transformers.js f32',
    async run({ rounds, missing }) {
      const [photo] = photos(photoFolder(data, source, 2016))
      const contenders = [
        { name: 'chiasma', own: true, dtype: 'bf16', script: 'first-chiasma.mjs', args: [model, 'auto', photo] },
        { name: 'chiasma', own: true, dtype: 'f32', script: 'first-chiasma.mjs', args: [model, 'f32', photo] },
        { name: 'transformers.js', needs: '@huggingface/transformers', dtype: 'f32', script: 'first-transformers-js.mjs', args: [dirname(model), basename(model), 'fp32', photo] },
        { name: 'transformers.js q8', needs: '@huggingface/transformers', dtype: 'int8', script: 'first-transformers-js.mjs', args: [dirname(model), basename(model), 'q8', photo] },
      ].map(one => ({ ...one, rates: [], cores: [], ...(missing[one.needs] && { missing: `not installed: ${missing[one.needs]}` }) }))
      for (let round = -1; round < rounds; round++) {
        for (const one of contenders) {
          if (one.missing) continue
          const { seconds, said } = await time(one.script, one.args)
          one.outputs = { data: Float32Array.from(said.embedding), rows: 1, columns: said.embedding.length }
          if (round >= 0) one.rates.push(1 / seconds)
        }
      }
      return contenders
    },
  }
  const memory = {
    name: 'folder-memory',
    section: 'folder',
    title: `Resident memory over a folder of ${count.toLocaleString('en-US')} photos`,
    unit: 'images/s',
    async run() {
      const { said } = await time('folder-memory.mjs', [model, photoFolder(data, source, count)])
      const weights = weightBytes(join(model, 'model.safetensors')) / 1e6
      const limit = 1.5 * weights + 250
      memory.notes = [
        `peak ${Math.round(said.peak)} MB, ${(said.peak / limit).toFixed(2)} × (1.5 × ${Math.round(weights)} MB of weights + 250 MB)`,
        `MB after each tenth of the photos: ${said.sizes.map(Math.round).join(', ')}`,
      ]
      return [{ name: 'chiasma', own: true, dtype: said.dtype, rates: [said.rate], cores: [said.cores] }]
    },
  }
  return [first, memory]
}
