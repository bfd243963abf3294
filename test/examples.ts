// The examples run, on a tiny checkpoint, as a user runs them.

import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { cli } from './support/cli.js'
import { temporaryFolder, writePictures, writeTinyClip } from './support/tiny-clip.js'

const examples = join(dirname(dirname(fileURLToPath(import.meta.url))), 'examples')
const { folder, remove } = await temporaryFolder()
t.teardown(remove)
const model = await writeTinyClip(folder)
const pictures = await writePictures(folder, 6)
await cli('--version') // builds dist where lib is newer

const run = async (name: string, ...args: string[]) => (await promisify(execFile)(process.execPath, [join(examples, name), ...args])).stdout.trim().split('\n')

const expectations: Record<string, (t: Test) => Promise<void>> = {
  'search-images.mjs': async (t) => {
    const lines = await run('search-images.mjs', model, join(folder, 'images'), pictures[2]!)
    t.equal(lines.length, 5)
    t.match(lines[0], new RegExp(`^1\\.0000 .*${'00002.jpg'}$`), 'a picture is nearest to itself')
    t.equal((await run('search-images.mjs', model, join(folder, 'images'), 'a cat')).length, 5)
  },
  'similar-texts.mjs': async (t) => {
    const lines = await run('similar-texts.mjs', model, 'a cat', 'a dog')
    t.match(lines[0], /^ ?1\.0000 .* a cat$/)
    t.match(lines[1], / 1\.0000 {2}a dog$/)
  },
}

for (const name of readdirSync(examples)) t.test(name, async (t) => expectations[name]!(t))
