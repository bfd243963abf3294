// Small questions about files.

import { stat } from 'node:fs/promises'

/** Whether `path` is a file that is there. */
export function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    found => found.isFile(),
    () => false,
  )
}
