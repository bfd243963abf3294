// Options that several commands share.

import { type Command, InvalidArgumentError } from 'commander'
import { isDeviceName, isDTypeName } from '../core/device.js'
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
  return withLoading(command.requiredOption('-m, --model <source>', 'folder or Hugging Face Hub id of the checkpoint'))
}

/** Adds how to load and run a model. */
export function withLoading(command: Command): Command {
  return command
    .option('--device <id>', "'auto', 'cpu', 'cuda' or 'cuda:N'", deviceName, 'auto')
    .option('--dtype <type>', "what products are computed in: 'auto', 'f32', 'bf16', 'f16' or 'int8'", dtypeName, 'auto')
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

function deviceName(text: string): string {
  if (!isDeviceName(text)) throw new InvalidArgumentError("expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
  return text
}

function dtypeName(text: string): string {
  if (!isDTypeName(text)) throw new InvalidArgumentError("expected 'auto', 'f32', 'bf16', 'f16' or 'int8'")
  return text
}

/** Labels in words, separated by commas. */
export function labelList(text: string): string[] {
  const labels = text.split(',').map((label) => label.trim()).filter(Boolean)
  if (!labels.length) throw new InvalidArgumentError('expected labels separated by commas')
  return labels
}

export function positiveNumber(text: string): number {
  const value = Number(text)
  if (!(value > 0 && value < Number.POSITIVE_INFINITY)) throw new InvalidArgumentError('expected a number above 0')
  return value
}

export function positiveInteger(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('expected a positive integer')
  return value
}
