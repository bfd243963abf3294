// Named prompts of a sentence-transformers folder: config_sentence_transformers.json { prompts: { query: '…' }, default_prompt_name }.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'

/** @throws CheckpointError naming the file and field if it is there and not of that form. */
export async function readPrompts(folder: string): Promise<{ prompts: Readonly<Record<string, string>>; defaultPrompt: string | undefined }> {
  const file = join(folder, 'config_sentence_transformers.json')
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { prompts: {}, defaultPrompt: undefined }
    throw new CheckpointError(`${file} cannot be read: ${(error as Error).message}`, { file, cause: error })
  }
  let config: { prompts?: unknown; default_prompt_name?: unknown }
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
  return { prompts: named, defaultPrompt: name === undefined ? undefined : named[name] }
}
