// JSON of files that are not ours. JSON.parse silently keeps the last of two equal keys; here a repeated key is an error, as are bytes
// that are no UTF-8 and files of absurd size.

import { CheckpointError } from '../core/errors.js'
import { readExactly, withFile } from './entry.js'

export type JsonObject = { [key: string]: unknown }

const MAX_JSON_FILE = 100_000_000

/**
 * Parses `bytes` as one JSON object. `what` is what errors call it ('model.safetensors: header').
 * @throws CheckpointError naming `what`: no UTF-8, no JSON, no object, a key twice.
 */
export function parseJsonObject(bytes: Uint8Array, what: string, file: string): JsonObject {
  let text: string
  let value: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new CheckpointError(`${what} is no UTF-8`, { file, cause })
  }
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new CheckpointError(`${what} is no JSON: ${(cause as Error).message}`, { file, cause })
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new CheckpointError(`${what} is ${Array.isArray(value) ? 'an array' : value === null ? 'null' : `a ${typeof value}`}; expected an object`, { file })
  }
  const repeated = findRepeatedKey(text)
  if (repeated !== undefined) throw new CheckpointError(`${what} has the key ${JSON.stringify(repeated)} twice`, { file })
  return value as JsonObject
}

/** Reads a JSON file that holds one object, such as config.json. */
export async function readJsonObject(file: string): Promise<JsonObject> {
  return parseJsonObject(await readSmallFile(file, MAX_JSON_FILE), file, file)
}

/** Whether a system's error says that there is no such file, or that its folder is a file. */
export function isAbsent(cause: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException | undefined)?.code ?? '')
}

/** The same; undefined if the file is not there. */
export async function ifThere(file: string): Promise<JsonObject | undefined> {
  try {
    return await readJsonObject(file)
  } catch (error) {
    if (error instanceof CheckpointError && isAbsent(error.cause)) return undefined
    throw error
  }
}

/** Reads a whole file that is expected to be small. */
export async function readSmallFile(file: string, maxBytes: number): Promise<Buffer> {
  return withFile(file, async (handle, size) => {
    if (size > maxBytes) throw new CheckpointError(`${file} has ${size} bytes; at most ${maxBytes} are read of such a file`, { file })
    return readExactly(handle, file, 0, size)
  })
}

/** The first key that occurs twice in one object of `text`, which is known to be valid JSON. */
function findRepeatedKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = [] // one set of keys per open object; undefined for an array
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x7b /* { */) open.push(new Set())
    else if (code === 0x5b /* [ */) open.push(undefined)
    else if (code === 0x7d /* } */ || code === 0x5d /* ] */) open.pop()
    else if (code === 0x22 /* " */) {
      const start = at
      at = endOfString(text, at + 1)
      if (!colonFollows(text, at + 1)) continue
      const plain = text.slice(start + 1, at)
      const key = plain.includes('\\') ? (JSON.parse(`"${plain}"`) as string) : plain
      const keys = open.at(-1)!
      if (keys.has(key)) return key
      keys.add(key)
    }
  }
  return undefined
}

/** Where the quotation mark is that ends the string whose contents begin at `from`. */
function endOfString(text: string, from: number): number {
  for (let end = text.indexOf('"', from); ; end = text.indexOf('"', end + 1)) {
    let slashes = 0
    while (text.charCodeAt(end - 1 - slashes) === 0x5c /* \ */ && end - slashes > from) slashes++
    if (slashes % 2 === 0) return end
  }
}

function colonFollows(text: string, position: number): boolean {
  for (let code = text.charCodeAt(position); code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d; ) code = text.charCodeAt(++position)
  return text.charCodeAt(position) === 0x3a /* : */
}
