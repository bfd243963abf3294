// The package as its users get it: prebuilt against glibc 2.28, packed, installed into empty folders without a compiler, with and
// without install scripts, and built from source by the one command that the error message names.

import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { writePictures, writeTinyClip } from '../support/tiny-clip.js'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const exec = promisify(execFile)
const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1' }
for (const name of Object.keys(env)) if (/^(npm_|TAP|NODE_OPTIONS|INIT_CWD)/i.test(name) && !/registry|cafile|proxy|userconfig/i.test(name)) delete env[name]

async function run(command: string, args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Promise<string> {
  const { stdout, stderr } = await exec(command, args, { cwd: root, env, maxBuffer: 64 << 20, ...options })
  return stdout + stderr
}

/** Symbol versions of glibc and libstdc++ that a shared object asks for. */
async function neededVersions(file: string): Promise<string[]> {
  return [...new Set((await run('readelf', ['--version-info', '--wide', file])).match(/\b(GLIBC|GLIBCXX|CXXABI)_[0-9.]+/g) ?? [])]
}

const embed = `
  const { Embedder, listDevices, ops, Tensor } = MODULE
  const [folder, image] = process.argv.slice(2)
  const run = async () => {
    const devices = await listDevices()
    const a = new Tensor('float32', new Float32Array([1, 0, 0, 1]), [2, 2])
    const { indices } = await ops.cosineTopK(a, a, 1, { dtype: 'f32' })
    const embedder = await Embedder.fromPretrained(folder, { dtype: 'f32' })
    const { dims, data } = await embedder.embedImages([image])
    console.log(JSON.stringify({ cpu: devices.some(d => d.id === 'cpu' && d.available), indices: Array.from(indices.data), dims, norm: Math.hypot(...data) }))
  }
  run()
`

t.test('package', async (t) => {
  const work = await mkdtemp(join(tmpdir(), 'chiasma-package-'))
  t.teardown(() => rm(work, { recursive: true, force: true }))

  await run('node', ['scripts/prebuild-release.mjs'])
  const prebuilds = await readdir(join(root, 'prebuilds/linux-x64'))
  t.same(prebuilds, ['chiasma.glibc.node'], 'prebuildify ships the addon and nothing else')
  // prebuildify moves the addon out of build/Release; a clone goes on with its own build.
  await run('node', ['scripts/build-addon.mjs'])

  await t.test('symbol versions', async (t) => {
    const versions = await neededVersions(join(root, 'prebuilds/linux-x64/chiasma.glibc.node'))
    const glibc = versions.filter((version) => version.startsWith('GLIBC_')).map((version) => version.slice(6).split('.').map(Number))
    t.ok(glibc.length, 'it is linked against glibc')
    for (const [major, minor] of glibc) t.ok(major === 2 && minor! <= 28, `GLIBC_${major}.${minor} is in glibc 2.28`)
    const newest = versions.filter((version) => /^GLIBCXX_3\.4\.(2[6-9]|[3-9]\d)|^CXXABI_1\.3\.(1[2-9])/.test(version))
    t.same(newest, [], 'no symbol of a libstdc++ newer than that of glibc 2.28 systems')
  })

  const tarball = join(work, (await run('npm', ['pack', '--pack-destination', work, '--silent'])).trim().split('\n').at(-1)!)
  await t.test('contents', async (t) => {
    const files = (await run('tar', ['-tzf', tarball])).trim().split('\n').map((name) => name.replace(/^package\//, ''))
    for (const name of ['dist/index.js', 'dist/index.d.ts', 'prebuilds/linux-x64/chiasma.glibc.node', 'CMakeLists.txt', 'binding.gyp', 'native/cpp/addon.cpp', 'LICENSE', 'README.md']) {
      t.ok(files.includes(name), `${name} is packed`)
    }
    t.same(files.filter((name) => /^(test|build|bench|node_modules|lib)\//.test(name)), [], 'nothing of the clone alone is packed')
    const { scripts = {} } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
    for (const name of ['preinstall', 'install', 'postinstall']) t.notOk(scripts[name], `there is no ${name} script`)
  })

  // A machine with Node, npm and a shell, and no compiler.
  const bin = join(work, 'bin')
  await mkdir(bin)
  for (const name of ['node', 'npm', 'npx', 'sh', 'env', 'uname', 'ls', 'cat', 'dirname', 'basename', 'sed']) {
    const path = (await run('sh', ['-c', `command -v ${name}`])).trim()
    await symlink(path, join(bin, name))
  }
  const bare = { ...env, PATH: bin }
  const fixture = await writeTinyClip(work)
  const [image] = (await writePictures(work, 1)) as [string]

  async function install(name: string, args: string[]): Promise<{ folder: string; output: string }> {
    const folder = join(work, name)
    await mkdir(folder)
    await writeFile(join(folder, 'package.json'), '{ "private": true }\n')
    return { folder, output: await run('npm', ['install', tarball, '--foreground-scripts', ...args], { cwd: folder, env: bare }) }
  }

  for (const [name, args] of [['plain', []], ['ignore-scripts', ['--ignore-scripts']]] as const) {
    await t.test(`installed ${name}`, async (t) => {
      const { folder, output } = await install(name, [...args])
      t.notMatch(output, /chiasma.*install script|install script.*chiasma|allow-scripts.*chiasma|node-gyp|cmake/i, 'no install script is run or warned about')
      await writeFile(join(folder, 'run.mjs'), embed.replace('MODULE', "await import('chiasma')"))
      await writeFile(join(folder, 'run.cjs'), embed.replace('MODULE', "require('chiasma')"))
      for (const script of ['run.mjs', 'run.cjs']) {
        const result = JSON.parse((await run('node', [script, fixture, image], { cwd: folder, env: bare })).trim().split('\n').at(-1)!)
        t.match(result, { cpu: true, indices: [0, 1], dims: [1, 20] }, `${script} loads and embeds`)
        t.ok(Math.abs(result.norm - 1) < 1e-5, 'the embedding is normalised')
      }
      const doctor = JSON.parse(await run(join(folder, 'node_modules/.bin/chiasma'), ['doctor', '--json'], { cwd: folder, env: bare }))
      t.ok(doctor.devices.some((device: { id: string }) => device.id === 'cpu'), 'the command runs')
    })
  }

  await t.test('built from source', async (t) => {
    const { folder } = await install('source', ['--ignore-scripts'])
    await rm(join(folder, 'node_modules/chiasma/prebuilds'), { recursive: true })
    await writeFile(join(folder, 'run.mjs'), embed.replace('MODULE', "await import('chiasma')"))
    await writeFile(
      join(folder, 'fail.mjs'),
      "import { listDevices } from 'chiasma'\nlistDevices().then(() => console.log('loaded'), error => console.log(JSON.stringify({ code: error.code, message: error.message })))\n",
    )
    const failure = JSON.parse((await run('node', ['fail.mjs'], { cwd: folder, env: bare })).trim())
    t.equal(failure.code, 'ERR_DEVICE', 'import succeeds and the first native call fails')
    t.match(failure.message, /linux.*x64/i, 'the message says what is there and what is supported')
    const command = /node node_modules\/chiasma\/scripts\/build-addon\.mjs/.exec(failure.message)?.[0]
    t.ok(command, 'the message names the one command that builds from source')
    const [program, ...args] = command!.split(' ')
    await run(program!, args, { cwd: folder })
    const result = JSON.parse((await run('node', ['run.mjs', fixture, image], { cwd: folder })).trim().split('\n').at(-1)!)
    t.match(result, { cpu: true, dims: [1, 20] }, 'the built addon loads and embeds')
  })

  await t.test('metadata', async (t) => {
    t.match(await run('npx', ['publint', '--strict', tarball]), /All good/, 'publint')
    await t.resolves(run('npx', ['attw', tarball, '--profile', 'esm-only']), 'arethetypeswrong')
  })
})
