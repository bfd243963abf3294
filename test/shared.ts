// Where the shared test data (real weights, photos, reference outputs) is: CHIASMA_SHARED, or `shared` beside the repository.

import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const candidate = process.env['CHIASMA_SHARED'] ?? resolve(root, '..', 'shared')

/** The folder, or undefined where it is absent; tests then skip and say so. */
export const sharedDir: string | undefined = existsSync(join(candidate, 'parity')) ? candidate : undefined

/** A path inside the shared data; only where `sharedDir` is there. */
export function shared(...parts: string[]): string {
  if (!sharedDir) throw new Error('no shared data')
  return join(sharedDir, ...parts)
}

/** The reason tests give when they skip for lack of it. */
export const noShared = sharedDir ? false : 'no shared data: set CHIASMA_SHARED or place it beside the repository'
