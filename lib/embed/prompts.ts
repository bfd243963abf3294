// What a sentence-transformers folder says of its embeddings: config_sentence_transformers.json { prompts: { query: '…' }, default_prompt_name,
// truncate_dim }.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'

export interface EmbeddingDefaults {
  readonly prompts: Readonly<Record<string, string>>
  readonly defaultPrompt: string | undefined
  /** Leading dimensions that are kept; undefined: all. */
  readonly defaultDimensions: number | undefined
}

/** @throws CheckpointError naming the file and field if it is there and not of that form. */
export async function readEmbeddingDefaults(folder: string): Promise<EmbeddingDefaults> {
  const file = join(folder, 'config_sentence_transformers.json')
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { prompts: {}, defaultPrompt: undefined, defaultDimensions: undefined }
    throw new CheckpointError(`${file} cannot be read: ${(error as Error).message}`, { file, cause: error })
  }
  let config: { prompts?: unknown; default_prompt_name?: unknown; truncate_dim?: unknown }
  try {
    config = JSON.parse(text)
  } catch (error) {
    throw new CheckpointError(`${file} is not JSON: ${(error as Error).message}`, { file, cause: error })
  }
  const prompts = config?.prompts ?? {}
  if (typeof prompts !== 'object' || Array.isArray(prompts) || Object.values(prompts).some((prompt) => typeof prompt !== 'string')) {
    throw new CheckpointError(`${file}: prompts is not an object of strings`, { file, field: 'prompts' })
  }
  const named = prompts as Record<string, string>
  const name = config.default_prompt_name ?? undefined
  if (name !== undefined && (typeof name !== 'string' || !Object.hasOwn(named, name))) {
    throw new CheckpointError(`${file}: default_prompt_name is ${JSON.stringify(name)}, which is not among the prompts`, { file, field: 'default_prompt_name' })
  }
  const kept = config.truncate_dim ?? undefined
  if (kept !== undefined && (!Number.isInteger(kept) || (kept as number) < 1)) {
    throw new CheckpointError(`${file}: truncate_dim is ${JSON.stringify(kept)}; expected a positive integer`, { file, field: 'truncate_dim' })
  }
  return { prompts: named, defaultPrompt: name === undefined ? undefined : named[name], defaultDimensions: kept as number | undefined }
}
