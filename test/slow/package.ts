// The package as its users get it: prebuilt against glibc 2.28, packed, installed into empty folders without a compiler, with and
// without install scripts, and built from source by the one command that the error message names.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
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

const consumer = `
  import { ArgumentError, AutoModel, Embedder, type ImageInput, listDevices, type LoadOptions, ops, Tensor, VectorIndex } from 'chiasma'
  import { Linear } from 'chiasma/nn'

  export async function nearest(images: readonly ImageInput[], options: LoadOptions): Promise<string | undefined> {
    const embedder = await Embedder.fromPretrained('openai/clip-vit-base-patch32', options)
    const index = await VectorIndex.create({ dimensions: embedder.dimensions })
    await index.add(await embedder.embedImages(images), images.map(String))
    for await (const result of embedder.embedStream(images)) if (result.error) throw result.error
    const [hits] = await index.search(await embedder.embedTexts(['a cat'], { promptName: 'query' }), 1)
    return hits?.[0]?.id
  }
  export const scores: Promise<Tensor> = ops.cosineSimilarity(new Tensor('float32', new Float32Array(4), [2, 2]), { type: 'float32', data: [1, 2], dims: [1, 2] })
  export const halves = new Tensor('float16', new Float16Array(2), [2])
  export const rest = [ArgumentError, AutoModel, Linear, listDevices]
`

/** node-gyp as npm brings it, and what it needs: Python, and the headers beside Node. Else why it cannot be tried. */
async function findNodeGyp(): Promise<{ command: string[] } | { skip: string }> {
  const npm = await realpath((await run('sh', ['-c', 'command -v npm'])).trim())
  const gyp = join(dirname(npm), '../node_modules/node-gyp/bin/node-gyp.js')
  if (!existsSync(gyp)) return { skip: 'npm brings no node-gyp here' }
  const prefix = dirname(dirname(await realpath(process.execPath)))
  if (!existsSync(join(prefix, 'include/node/node.h'))) return { skip: 'no Node headers beside node' }
  try {
    await run('python3', ['--version'])
  } catch {
    return { skip: 'no python3' }
  }
  return { command: [gyp, `--nodedir=${prefix}`] }
}

/** Every file of the package is of one of these kinds. */
const packed = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt|binding\.gyp|scripts\/build-addon\.mjs)$/,
  /^dist\/[\w/-]+\.js$/,
  /^typings\/(?!addon)[\w-]+\.d\.ts$/,
  /^native\/(cpp\/[\w/]+|cuda\/\w+)\.(cpp|h|cu|cuh|map)$/, // not native/cuda/sim
  /^prebuilds\/linux-x64\/(chiasma\.glibc\.node|libchiasma_cuda\.so)$/,
]

t.test('package', async (t) => {
  const work = await mkdtemp(join(tmpdir(), 'chiasma-package-'))
  t.teardown(() => rm(work, { recursive: true, force: true }))
  let started = performance.now()
  const lap = (what: string) => {
    t.comment(`${what}: ${((performance.now() - started) / 1000).toFixed(0)} s`)
    started = performance.now()
  }

  const own = join(root, 'build/Release/chiasma.node')
  const before = existsSync(own) && (await stat(own)).ino
  await run('npm', ['run', 'cuda:toolkit'])
  await run('npm', ['run', 'prebuild:release'])
  lap('prebuild')
  t.equal(existsSync(own) && (await stat(own)).ino, before, 'the addon of the clone stays')
  const made = ['linux-x64', 'linux-x64/chiasma.glibc.node', 'linux-x64/libchiasma_cuda.so']
  t.same((await readdir(join(root, 'prebuilds'), { recursive: true })).sort(), made, 'the addon, the CUDA library and nothing else, no simulator')

  const prebuilt = join(root, 'prebuilds/linux-x64/chiasma.glibc.node')
  const cuda = join(root, 'prebuilds/linux-x64/libchiasma_cuda.so')
  for (const file of [prebuilt, cuda]) {
    await t.test(`symbols of ${basename(file)}`, async (t) => {
      const versions = await neededVersions(file)
      t.ok(versions.length, 'it is linked against glibc')
      for (const version of versions) {
        const [, minor] = /^GLIBC_2\.(\d+)(?:\.\d+)?$/.exec(version) ?? []
        t.ok(minor !== undefined && Number(minor) <= 28, `${version} is in glibc 2.28`)
      }
      const libraries = [...(await run('readelf', ['--dynamic', '--wide', file])).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map((match) => match[1]!)
      t.same(libraries.filter((name) => !/^(libc|libm|libdl|libpthread|librt|ld-linux-x86-64)\.so\.\d+$/.test(name)), [], 'it needs glibc and no other library, no driver')
    })
  }
  t.match(await run('node', ['scripts/check-weak-symbols.mjs', 'build/cmake-release']), /^[1-9]\d* objects, 0 complaints/, 'no weak symbols in the simd objects of this compiler either')
  t.equal((await run('nm', ['--dynamic', '--defined-only', '--format=just-symbols', cuda])).trim(), 'chiasma_cuda_library', 'the CUDA library exports its table alone')
  const architectures = (await run(join(root, 'build/tools/cuda/nvidia/cu13/bin/cuobjdump'), ['--list-elf', '--list-ptx', cuda])).match(/\.sm_\w+\.\w+/g)
  t.same([...new Set(architectures)].sort(), ['.sm_100.cubin', '.sm_120.cubin', '.sm_80.cubin', '.sm_80.ptx', '.sm_86.cubin', '.sm_89.cubin', '.sm_90a.cubin'], 'it has every architecture')

  const tarball = join(work, (await run('npm', ['pack', '--pack-destination', work, '--silent'])).trim().split('\n').at(-1)!)
  lap('pack')
  await t.test('contents', async (t) => {
    const files = (await run('tar', ['-tzf', tarball])).trim().split('\n').map((name) => name.replace(/^package\//, ''))
    const { size } = await stat(tarball)
    t.comment(`${files.length} files, ${(size / 2 ** 20).toFixed(1)} MiB`)
    t.ok(size < 80e6, `${size} bytes are under 80 MB`)
    t.same(files.filter((name) => /\.(node|so)$/.test(name)), ['prebuilds/linux-x64/chiasma.glibc.node', 'prebuilds/linux-x64/libchiasma_cuda.so'], 'one addon, one CUDA library')
    t.same(files.filter((name) => !packed.some((kind) => kind.test(name))), [], 'nothing superfluous')
    const sources = (await readdir(join(root, 'native/cpp'), { recursive: true })).filter((name) => name.includes('.')).map((name) => `native/cpp/${name}`)
    const wanted = ['package.json', 'README.md', 'LICENSE', 'CMakeLists.txt', 'binding.gyp', 'scripts/build-addon.mjs', 'dist/index.js', 'dist/cli/main.js', 'typings/index.d.ts', 'typings/nn.d.ts', 'typings/shared.d.ts', 'prebuilds/linux-x64/chiasma.glibc.node']
    t.same([...wanted, ...sources].filter((name) => !files.includes(name)), [], 'nothing is lacking')
    const { scripts = {}, binary, gypfile } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
    for (const name of ['preinstall', 'install', 'postinstall']) t.notOk(scripts[name], `there is no ${name} script`)
    t.same([binary.napi_versions, gypfile], [[9], false], 'npm adds no install script for binding.gyp')
  })

  await t.test('metadata', async (t) => {
    t.match(await run('node_modules/.bin/publint', ['--strict', tarball]), /All good/, 'publint')
    await t.resolves(run('node_modules/.bin/attw', [tarball, '--profile', 'esm-only']), 'arethetypeswrong')
  })
  lap('metadata')

  // A machine with Node, npm and a shell, and no compiler.
  const bin = join(work, 'bin')
  await mkdir(bin)
  for (const name of ['node', 'npm', 'sh', 'env', 'uname']) {
    await symlink((await run('sh', ['-c', `command -v ${name}`])).trim(), join(bin, name))
  }
  const bare = { ...env, PATH: bin }
  const fixture = await writeTinyClip(work)
  const [image] = (await writePictures(work, 1)) as [string]

  /** Embeds in a project by one of its scripts. */
  async function embeds(t: Test, folder: string, script: string): Promise<void> {
    const result = JSON.parse((await run('node', [script, fixture, image], { cwd: folder, env: bare })).trim().split('\n').at(-1)!)
    t.match(result, { cpu: true, indices: [0, 1], dims: [1, 20] }, `${script} loads and embeds`)
    t.ok(Math.abs(result.norm - 1) < 1e-5, 'the embedding is normalised')
  }

  for (const [name, ...args] of [['plain'], ['ignore-scripts', '--ignore-scripts']] as const) {
    await t.test(`installed ${name}`, async (t) => {
      const folder = join(work, name)
      await mkdir(folder)
      await writeFile(join(folder, 'package.json'), '{ "private": true }\n')
      const output = await run('npm', ['install', tarball, '--foreground-scripts', ...args], { cwd: folder, env: bare })
      t.notMatch(output, /install.?script|allow-?scripts|node-gyp|cmake|\bERR\b/i, 'no install script is run or warned about')
      await writeFile(join(folder, 'run.mjs'), embed.replace('MODULE', "await import('chiasma')"))
      await writeFile(join(folder, 'run.cjs'), embed.replace('MODULE', "require('chiasma')"))
      for (const script of ['run.mjs', 'run.cjs']) await embeds(t, folder, script)
      const doctor = JSON.parse(await run(join(folder, 'node_modules/.bin/chiasma'), ['doctor', '--json'], { cwd: folder, env: bare }))
      t.ok(doctor.devices.some((device: { id: string }) => device.id === 'cpu'), 'the command runs')
    })
    lap(`installed ${name}`)
  }

  // Declarations are checked too, under every resolution that finds the package's exports, and by a TypeScript that loads no types unasked, as 6 does.
  await t.test('a consumer in TypeScript', async (t) => {
    const folder = join(work, 'plain')
    await symlink(join(root, 'node_modules/@types'), join(folder, 'node_modules/@types'))
    await writeFile(join(folder, 'consumer.mts'), consumer)
    await writeFile(join(folder, 'consumer.cts'), consumer)
    const strict = { noEmit: true, strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false, target: 'es2022', lib: ['es2022', 'esnext.float16'], types: [] }
    for (const [module, moduleResolution, ...files] of [
      ['node16', 'node16', 'consumer.mts'],
      ['nodenext', 'nodenext', 'consumer.mts', 'consumer.cts'],
      ['esnext', 'bundler', 'consumer.mts'],
    ]) {
      await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...strict, module, moduleResolution }, files }))
      const said = await run('node', [join(root, 'node_modules/typescript/bin/tsc'), '-p', '.'], { cwd: folder }).catch((error: { stdout: string }) => error.stdout)
      t.equal(said, '', `moduleResolution ${moduleResolution}`)
    }
  })
  lap('TypeScript')

  await t.test('built from source', async (t) => {
    const folder = join(work, 'ignore-scripts')
    const installed = join(folder, 'node_modules/chiasma')
    await rm(join(installed, 'prebuilds'), { recursive: true })
    await writeFile(
      join(folder, 'fail.mjs'),
      "import { listDevices } from 'chiasma'\nlistDevices().then(() => console.log('loaded'), error => console.log(JSON.stringify({ code: error.code, message: error.message })))\n",
    )
    const failure = JSON.parse((await run('node', ['fail.mjs'], { cwd: folder, env: bare })).trim())
    t.equal(failure.code, 'ERR_DEVICE', 'import succeeds and the first native call fails')
    t.ok(failure.message.includes(`${process.platform}-${process.arch}`), 'the message says which platform this is')
    t.match(failure.message, /prebuilt: linux-x64 with glibc 2\.28/, 'and what is supported')
    const command = /node node_modules\/chiasma\/scripts\/build-addon\.mjs/.exec(failure.message)?.[0]
    t.ok(command, 'and the one command that builds from source')
    const [program, ...args] = command!.split(' ')
    await run(program!, args, { cwd: folder })
    lap('built from source')
    t.same(await readdir(join(installed, 'build/Release')), ['chiasma.node'], 'only the finished addon is in build/Release')
    await embeds(t, folder, 'run.mjs')

    const gyp = await findNodeGyp()
    await t.test('node-gyp', { skip: 'skip' in gyp ? gyp.skip : false }, async (t) => {
      if ('skip' in gyp) return
      // `rebuild` is clean, configure and build; without clean the objects of the build above serve.
      await rm(join(installed, 'build/Release'), { recursive: true })
      for (const step of ['configure', 'build']) await run('node', [...gyp.command, step], { cwd: installed })
      await embeds(t, folder, 'run.mjs')
    })
    lap('node-gyp')
  })
})
