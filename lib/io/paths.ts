// File names from files and listings that are not ours.

import { CheckpointError } from '../core/errors.js'

/**
 * Checks that `name`, read from an index, a module list or a Hub listing, stays below the folder it is relative to. Symbolic links
 * that are there already are the user's own and are followed (the Hub's cache is made of them).
 * @param where what errors call the place the name was read from
 */
export function checkInside(name: string, where: string, file: string): void {
  const parts = name.split(/[/\\]/)
  // A colon would be a drive or a stream on Windows; no name on the Hub has one.
  if (name === '' || name.includes('\0') || name.includes(':') || parts.some(part => part === '' || part === '.' || part === '..')) {
    throw new CheckpointError(`${where} has the file name ${JSON.stringify(name)}; expected a relative one that stays inside the folder`, { file })
  }
}
