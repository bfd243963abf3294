// The examples run, on a tiny checkpoint, as a user runs them; so do the README's own lines.

import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { cli } from './support/cli.js'
import { HubServer } from './support/hub-server.js'
import { temporaryFolder, writePictures, writeTinyClip } from './support/tiny-clip.js'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const examples = join(root, 'examples')
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

t.test("the README's lines, with their id from a Hub", async (t) => {
  const [, lines = ''] = /```js\n(.*?)```/s.exec(await readFile(join(root, 'README.md'), 'utf8')) ?? []
  const [, id = ''] = /fromPretrained\('(.*?)'\)/.exec(lines) ?? []
  const [, printed = ''] = /console\.log\(.*\) \/\/ (.*)\n/.exec(lines) ?? []
  // The small checkpoint has 20 dimensions where the one of that name has 512.
  t.equal(printed, '[ 2, 512 ] [ 2, 512 ]')

  const user = join(folder, 'user')
  await mkdir(join(user, 'node_modules'), { recursive: true })
  await symlink(root, join(user, 'node_modules/chiasma'))
  await writeFile(join(user, 'example.mjs'), lines)
  await copyFile(pictures[0]!, join(user, 'cat.jpg'))
  await copyFile(pictures[1]!, join(user, 'dog.jpg'))
  const files = await Promise.all((await readdir(model)).map(async (name): Promise<[string, Buffer]> => [name, await readFile(join(model, name))]))
  const server = await HubServer.start(Object.fromEntries(files), ['model.safetensors'], id)
  t.teardown(() => server.close())
  const env = { ...process.env, HF_ENDPOINT: server.endpoint, HF_HOME: join(folder, 'hub') }
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['example.mjs'], { cwd: user, env })
  t.equal(stdout, `${printed.replaceAll('512', '20')}\n`)
  t.equal(stderr, '')
  t.ok(server.sent().includes('model.safetensors'), 'it came from there')
})
