// Options that several commands share.

import { type Command, InvalidArgumentError, Option } from 'commander'
import type { LoadOptions } from '../models/auto-model.js'
import { showDownloads } from './progress.js'

export interface ModelOptions {
  model: string
  device?: string
  dtype?: string
  threads?: number
  revision?: string
  cacheDir?: string
  offline?: boolean
}

/** Adds --model and how to run it. */
export function withModel(command: Command): Command {
  return command
    .requiredOption('-m, --model <source>', 'folder or Hugging Face Hub id of the checkpoint')
    .option('--device <id>', "'auto', 'cpu', 'cuda' or 'cuda:N'", 'auto')
    .addOption(new Option('--dtype <type>', 'compute type').choices(['auto', 'f32', 'bf16', 'f16', 'int8']).default('auto'))
    .option('--threads <n>', 'CPU threads to use at most', positiveInteger)
    .option('--revision <name>', 'branch, tag or commit on the Hub')
    .option('--cache-dir <folder>', 'where Hub files are kept')
    .option('--offline', 'use cached Hub files only')
}

export function loadOptions(options: ModelOptions): LoadOptions {
  return {
    device: options.device as LoadOptions['device'],
    dtype: options.dtype as LoadOptions['dtype'],
    threads: options.threads,
    revision: options.revision,
    cacheDir: options.cacheDir,
    localFilesOnly: options.offline,
    onProgress: showDownloads(),
  }
}

export function positiveInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer')
  return value
}
