// Whether files are still those that a checkpoint was loaded from: parts of it are read when they are first used.

import { stat } from 'node:fs/promises'
import { CheckpointError } from '../core/errors.js'

export interface FileMark {
  readonly file: string
  /** Another one once the file was replaced or written to; '' while there is none. */
  readonly mark: string
}

async function markOf(file: string): Promise<FileMark> {
  const found = await stat(file).catch(() => undefined)
  return { file, mark: found ? [found.dev, found.ino, found.size, found.mtimeMs].join(' ') : '' }
}

export function marksOf(files: readonly string[]): Promise<FileMark[]> {
  return Promise.all(files.map(markOf))
}

/** @throws CheckpointError naming a file that is another now. Parts of a checkpoint need not belong together then. */
export async function checkMarks(marks: readonly FileMark[]): Promise<void> {
  for (const { file, mark } of marks) {
    if ((await markOf(file)).mark !== mark) throw new CheckpointError(`${file} was changed since the model was loaded; a part of it is read when it is first used`, { file })
  }
}
