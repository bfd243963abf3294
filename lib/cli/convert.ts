// chiasma convert: a checkpoint in PyTorch's format to safetensors.

import type { Command } from 'commander'
import { convertCheckpoint } from '../io/convert.js'
import { say } from './console.js'
import { Progress } from './progress.js'
import { StopSignals } from './stop-signals.js'

export function define(command: Command): void {
  command
    .argument('<source>', 'checkpoint folder or file')
    .argument('<destination>', 'folder to write')
    .option('--overwrite', 'replace a safetensors file that is there')
    .action(run)
}

async function run(source: string, destination: string, options: { overwrite?: boolean }): Promise<void> {
  let progress: Progress | undefined
  const stop = new StopSignals()
  try {
    await convertCheckpoint(source, destination, {
      overwrite: options.overwrite,
      signal: stop.signal,
      onProgress: (written, total) => (progress ??= new Progress('MB', Math.ceil(total / 1e6))).update(Math.ceil(written / 1e6)),
    })
  } catch (error) {
    progress?.stop()
    if (stop.signal.aborted) return stop.end()
    throw error
  }
  stop.forget()
  progress?.stop()
  say(`wrote ${destination}`)
}
