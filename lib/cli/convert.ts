// chiasma convert: a checkpoint in PyTorch's format to safetensors.

import type { Command } from 'commander'
import { convertCheckpoint } from '../io/convert.js'
import { Progress, say } from './console.js'

export function addConvert(program: Command): void {
  program
    .command('convert')
    .description('write the safetensors of a checkpoint in .bin or .pt files; nothing in them is executed')
    .argument('<source>', 'checkpoint folder or file')
    .argument('<destination>', 'folder to write')
    .option('--overwrite', 'replace a safetensors file that is there')
    .action(run)
}

async function run(source: string, destination: string, options: { overwrite?: boolean }): Promise<void> {
  let progress: Progress | undefined
  try {
    await convertCheckpoint(source, destination, {
      overwrite: options.overwrite,
      onProgress: (written, total) => (progress ??= new Progress('MB', Math.ceil(total / 1e6))).update(Math.ceil(written / 1e6)),
    })
  } finally {
    progress?.stop()
  }
  say(`wrote ${destination}`)
}
