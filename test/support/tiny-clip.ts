// A CLIP checkpoint small enough to run anywhere: the weights of the clip-v5 fixture with a preprocessor and a tokenizer of single letters,
// and pictures to give it.

import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'

const fixture = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures/parity/clip-v5')

/** A new folder that `remove` deletes. */
export async function temporaryFolder(): Promise<{ folder: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'chiasma-test-'))
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) }
}

/** Writes the checkpoint into `folder`/model and returns that path. */
export async function writeTinyClip(folder: string): Promise<string> {
  const model = join(folder, 'model')
  await mkdir(model, { recursive: true })
  for (const name of ['config.json', 'model.safetensors']) await cp(join(fixture, name), join(model, name))
  await writeFile(
    join(model, 'preprocessor_config.json'),
    JSON.stringify({ image_processor_type: 'CLIPImageProcessor', size: { shortest_edge: 24 }, crop_size: { height: 24, width: 24 } }),
  )
  const letters = 'abcdefghijklmnopqrstuvwxyz'
  const vocab: Record<string, number> = { '<|startoftext|>': 97, '<|endoftext|>': 98 }
  for (const [i, letter] of [...letters].entries()) {
    vocab[letter] = i
    vocab[`${letter}</w>`] = 26 + i
  }
  await writeFile(join(model, 'vocab.json'), JSON.stringify(vocab))
  await writeFile(join(model, 'merges.txt'), '#version: 0.2\n')
  await writeFile(join(model, 'tokenizer_config.json'), JSON.stringify({ tokenizer_class: 'CLIPTokenizer', model_max_length: 12, pad_token: '<|endoftext|>' }))
  return model
}

/** Writes `count` different JPEGs into `folder`/images and returns their paths in order. */
export async function writePictures(folder: string, count: number, side = 40): Promise<string[]> {
  const images = join(folder, 'images')
  await mkdir(images, { recursive: true })
  const paths: string[] = []
  for (let n = 0; n < count; n++) {
    const data = Buffer.alloc(side * side * 3)
    for (let i = 0; i < data.length; i++) data[i] = (i * (n + 3) + ((i * i) >> (n % 7))) & 255
    const path = join(images, `${String(n).padStart(5, '0')}.jpg`)
    await sharp(data, { raw: { width: side, height: side, channels: 3 } }).jpeg().toFile(path)
    paths.push(path)
  }
  return paths
}
