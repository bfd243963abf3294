// modules.json of sentence-transformers folders: a list of modules, each with a class and a folder. The first one is the model itself.

import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'
import { isAbsent, parseJsonObject, readSmallFile } from './json.js'
import { checkInside } from './paths.js'

const MAX_FILE = 1_000_000

/** The settings of the first module, in its folder; older files are named after the encoder's kind. */
export const SETTINGS_FILES: readonly string[] = ['bert', 'roberta', 'distilbert', 'camembert', 'xlm-roberta'].map(name => `sentence_${name}_config.json`)

export interface ModuleEntry {
  /** Below the folder; '' is the folder itself. */
  readonly path: string
  /** A Python class, 'sentence_transformers.models.Pooling'. */
  readonly type: string
}

export function modulesFile(folder: string): string {
  return join(folder, 'modules.json')
}

/**
 * The modules of a folder; undefined if it has no modules.json.
 * @throws CheckpointError for a file that is no such list, or a path that leads outside
 */
export async function readModules(folder: string): Promise<ModuleEntry[] | undefined> {
  const file = modulesFile(folder)
  let bytes: Buffer
  try {
    bytes = await readSmallFile(file, MAX_FILE)
  } catch (error) {
    if (isAbsent((error as Error).cause)) return undefined
    throw error
  }
  return parseModules(bytes, file)
}

/** @throws CheckpointError */
export function parseModules(bytes: Uint8Array, file: string): ModuleEntry[] {
  const { modules } = parseJsonObject(Buffer.concat([Buffer.from('{"modules":'), bytes, Buffer.from('}')]), file, file)
  if (!Array.isArray(modules)) throw new CheckpointError(`${file} is no list of modules`, { file })
  return modules.map((module: { path?: unknown; type?: unknown } | null, i) => {
    const path = module?.path ?? ''
    const type = module?.type
    for (const [field, value] of Object.entries({ path, type })) {
      if (typeof value !== 'string') throw new CheckpointError(`${file}: ${field} of module ${i} is ${JSON.stringify(value)}; expected a string`, { file, field })
    }
    if (path !== '') checkInside(path as string, file, file)
    return { path: path as string, type: type as string }
  })
}

/** The folder that holds a checkpoint's config.json, tokenizer and processor: that of the first module, or the folder itself. */
export async function modelFolder(folder: string): Promise<string> {
  return join(folder, (await readModules(folder))?.[0]?.path ?? '')
}
