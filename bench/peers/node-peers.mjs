// Node peers are imported from bench/.peers/node, where `npm run bench:peers` installs them.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const folder = fileURLToPath(new URL('../.peers/node/', import.meta.url))
const require = createRequire(join(folder, 'index.js'))

/** The module and version of an installed peer. */
export async function peer(name, entry = name) {
  const { version } = JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json')))
  return { module: await import(pathToFileURL(require.resolve(entry))), version }
}
