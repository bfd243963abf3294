// A disk that is soon full: a tmpfs of a few hundred kilobytes, mounted for a test where this process may mount.

import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'

/**
 * Mounts `kilobytes` at `folder`.
 * @returns how to unmount it, or why it cannot be mounted
 */
export function smallDisk(folder: string, kilobytes: number): { unmount: () => void; free: () => number } | { reason: string } {
  mkdirSync(folder, { recursive: true })
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kilobytes}k`, 'tmpfs', folder], { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (error) {
    return { reason: `no full disk to test with, since this process may not mount one: ${(error as Error).message.split('\n').slice(0, 2).join(' ')}` }
  }
  return {
    unmount: () => void execFileSync('umount', [folder]),
    free: () => Number(execFileSync('df', ['--output=avail', '-k', folder], { encoding: 'utf8' }).split('\n')[1]),
  }
}
