// What a command works on: files of images or sounds named one by one, by folder or by pattern, and texts from a file.

import { createReadStream, type Dirent } from 'node:fs'
import { lstat, readdir, realpath, stat } from 'node:fs/promises'
import { isAbsolute, join, sep } from 'node:path'
import { ArgumentError } from '../core/errors.js'
import { linesOf } from '../io/lines.js'
import { say } from './console.js'

/** What is looked for in folders. */
const extensions = {
  image: ['jpg', 'jpeg', 'jfif', 'png', 'webp', 'gif', 'avif', 'tif', 'tiff'],
  sound: ['wav', 'wave'],
}
type FileKind = keyof typeof extensions

/**
 * The files that paths, folders (searched whole, links followed, hidden files left out) and glob patterns name; those of one folder or
 * pattern in order of their paths.
 * @throws ArgumentError for a path that is not there, a folder without files of this kind and a pattern without any.
 */
export async function filePaths(given: readonly string[], kind: FileKind): Promise<string[]> {
  const isWanted = new RegExp(`\\.(${extensions[kind].join('|')})$`, 'i')
  const paths: string[] = []
  for (const name of given) {
    const stats = await stat(name).catch(() => undefined)
    if (stats?.isDirectory()) {
      const found: string[] = []
      await findFiles(name, isWanted, [], found)
      if (!found.length) throw new ArgumentError(`${name}: no ${kind} in this folder (looked for ${extensions[kind].join(', ')})`, { file: name })
      for (const path of found.sort()) paths.push(path)
    } else if (stats || !/[*?[{!(]/.test(name)) {
      if (!stats && !(await lstat(name).catch(() => undefined))) throw new ArgumentError(`${name}: no such file or folder`, { file: name })
      paths.push(name)
    } else {
      const { glob } = await import('tinyglobby')
      // Names come out as they go in, relative or absolute. In a pattern `\` is an escape, not Windows' separator.
      const found = await glob(sep === '\\' ? name.replaceAll(sep, '/') : name, { expandDirectories: false, absolute: isAbsolute(name) })
      if (!found.length) throw new ArgumentError(`${name}: no file matches this pattern`, { file: name })
      for (const path of found.sort()) paths.push(path)
    }
  }
  return paths
}

export const imagePaths = (given: readonly string[]): Promise<string[]> => filePaths(given, 'image')

/** Puts the files below `folder` into `found` whose names are wanted, also links that lead nowhere: their turn will say so. `above`: folders that it is in. */
async function findFiles(folder: string, isWanted: RegExp, above: readonly string[], found: string[]): Promise<void> {
  let entries: Dirent[]
  try {
    entries = await readdir(folder, { withFileTypes: true })
  } catch (error) {
    if (!above.length) throw new ArgumentError(`${folder} cannot be read: ${(error as Error).message}`, { file: folder, cause: error })
    say(`skipped ${folder}: ${(error as Error).message}`)
    return
  }
  const real = await realpath(folder)
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue
    const path = join(folder, entry.name)
    const target = entry.isSymbolicLink() ? await stat(path).catch(() => undefined) : entry
    if (target?.isDirectory()) {
      // A link to a folder that it is in would go round for ever.
      if (!entry.isSymbolicLink() || ![...above, real].includes(await realpath(path))) await findFiles(path, isWanted, [...above, real], found)
    } else if ((!target || target.isFile()) && isWanted.test(entry.name)) {
      found.push(path)
    }
  }
}

/** A mark that changes when the file does. */
export async function fileMark(path: string): Promise<string> {
  const stats = await stat(path).catch(() => undefined)
  return stats ? `${stats.size}-${Math.round(stats.mtimeMs)}` : 'absent'
}

/**
 * The texts of a file, or with '-' of standard input: one a line, empty lines left out; of a .jsonl file, the string of each line, or an object's string
 * fields in their order.
 * @throws ArgumentError naming file and line.
 */
export async function readTexts(file: string): Promise<string[]> {
  const texts: string[] = []
  const input = file === '-' ? process.stdin : createReadStream(file)
  let number = 0
  try {
    for await (const line of linesOf(input)) {
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
