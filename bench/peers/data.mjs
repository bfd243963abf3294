// What the contenders work on: the same for all, made once in bench/.peers/data from seeds or from files that the caller names.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** The float32 values of a file. */
export function floats(file) {
  const { buffer, byteOffset, byteLength } = readFileSync(file)
  return new Float32Array(buffer, byteOffset, byteLength / 4)
}

/** Both sentences of each line of an STS file; the first of equal ones. */
export function sentences(file) {
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean).map(line => JSON.parse(line))
  return [...new Set(lines.flatMap(({ a, b }) => [a, b]))]
}

/** Lists of token ids. */
export const captions = file => JSON.parse(readFileSync(file, 'utf8'))

/** The files of a folder, by name. */
export const photos = folder => readdirSync(folder).sort().map(name => join(folder, name))

/** Uniform numbers from 0 to 1: mulberry32. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function write(file, make) {
  if (!existsSync(file)) {
    writeFileSync(`${file}.part`, make())
    renameSync(`${file}.part`, file)
  }
  return file
}

/** Roughly normal values; rows of `columns` to length 1 if that is given. */
function normals(count, seed, columns) {
  const next = random(seed)
  const values = Float32Array.from({ length: count }, () => next() + next() + next() + next() - 2)
  for (let row = 0; columns && row < count; row += columns) {
    let sum = 0
    for (let i = row; i < row + columns; i++) sum += values[i] ** 2
    for (let i = row; i < row + columns; i++) values[i] /= Math.sqrt(sum)
  }
  return new Uint8Array(values.buffer)
}

export const pixelFile = folder => write(join(folder, 'pixels.f32'), () => normals(32 * 3 * 224 * 224, 1))
export const vectorFile = (folder, rows, columns, seed) => write(join(folder, `vectors-${rows}x${columns}-${seed}.f32`), () => normals(rows * columns, seed, columns))

/** Label prompts of 5 to 40 tokens of CLIP's vocabulary: start, content, end. */
export function captionFile(folder, count = 256) {
  return write(join(folder, `captions-${count}.json`), () => {
    const next = random(2)
    const caption = () => [49406, ...Array.from({ length: 3 + Math.floor(next() * 36) }, () => Math.floor(next() * 49406)), 49407]
    return JSON.stringify(Array.from({ length: count }, caption))
  })
}

/** A folder of `count` photos: those of `source` under other names, again and again. */
export function photoFolder(folder, source, count) {
  const made = join(folder, `photos-${count}`)
  if (existsSync(made)) return made
  const images = photos(source).filter(file => /\.jpe?g$/i.test(file))
  if (images.length === 0) throw new Error(`${source} holds no JPEG`)
  mkdirSync(`${made}.part`, { recursive: true })
  for (let i = 0; i < count; i++) symlinkSync(resolve(images[i % images.length]), join(`${made}.part`, `${String(i).padStart(6, '0')}.jpg`))
  renameSync(`${made}.part`, made)
  return made
}
