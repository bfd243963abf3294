// What a command works on: image files named one by one, by folder or by pattern, and texts from a file.

import { createReadStream } from 'node:fs'
import { lstat, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { ArgumentError } from '../core/errors.js'

const imageExtensions = ['jpg', 'jpeg', 'jfif', 'png', 'webp', 'gif', 'avif', 'tif', 'tiff']

/**
 * The images that paths, folders (searched whole) and glob patterns name; those of one folder or pattern in order of their paths.
 * @throws ArgumentError for a path that is not there and a pattern that matches nothing.
 */
export async function imagePaths(given: readonly string[]): Promise<string[]> {
  const paths: string[] = []
  const { glob } = await import('tinyglobby')
  for (const name of given) {
    const stats = await stat(name).catch(() => undefined)
    if (stats?.isDirectory()) {
      const pattern = `**/*.{${imageExtensions.join(',')}}`
      const found = await glob(pattern, { cwd: name, caseSensitiveMatch: false, dot: false, expandDirectories: false })
      if (!found.length) throw new ArgumentError(`${name}: no image in this folder (looked for ${imageExtensions.join(', ')})`, { file: name })
      paths.push(...found.sort().map((path) => join(name, path)))
    } else if (stats || !/[*?[{!(]/.test(name)) {
      if (!stats && !(await lstat(name).catch(() => undefined))) throw new ArgumentError(`${name}: no such file or folder`, { file: name })
      paths.push(name)
    } else {
      const found = await glob(name, { expandDirectories: false })
      if (!found.length) throw new ArgumentError(`${name}: no file matches this pattern`, { file: name })
      paths.push(...found.sort())
    }
  }
  return paths
}

/** A mark that changes when the file does. */
export async function fileMark(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined)
  return stats ? `${stats.size}-${Math.round(stats.mtimeMs)}` : 'absent'
}

/**
 * The texts of a file: one a line, empty lines left out; of a .jsonl file, the string of each line, or an object's string fields in their order.
 * @throws ArgumentError naming file and line.
 */
export async function readTexts(file: string): Promise<string[]> {
  const texts: string[] = []
  const input = createReadStream(file)
  let number = 0
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      number++
      if (!line.trim()) continue
      if (!file.endsWith('.jsonl')) {
        texts.push(line)
        continue
      }
      const found = stringsOf(JSON.parse(line))
      if (!found.length) throw new ArgumentError(`${file}: line ${number} holds no text`, { file })
      texts.push(...found)
    }
  } catch (cause) {
    if (cause instanceof ArgumentError) throw cause
    if (cause instanceof SyntaxError) throw new ArgumentError(`${file}: line ${number} is not JSON: ${cause.message}`, { file, cause })
    throw new ArgumentError(`${file} cannot be read: ${(cause as Error).message}`, { file, cause })
  } finally {
    input.destroy()
  }
  return texts
}

function stringsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (value === null || typeof value !== 'object') return []
  return Object.values(value).filter((field): field is string => typeof field === 'string')
}
