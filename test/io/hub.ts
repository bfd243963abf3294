// Models from the Hub, against a local server: which files, the cache's layout, resuming, checks of what comes, tokens, refusals.

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, open, readFile, readdir, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { CheckpointError } from '../../lib/core/errors.js'
import { type ProgressEvent, type SourceOptions, resolveSource } from '../../lib/io/hub.js'
import { HubServer, gitHash, sha256 } from '../support/hub-server.js'

const files = {
  'config.json': '{"model_type":"bert"}',
  'tokenizer.json': '{}',
  'tokenizer_config.json': '{"model_max_length":77}',
  'vocab.txt': 'not needed where there is a tokenizer.json',
  'model.safetensors': randomBytes(400_000),
  'pytorch_model.bin': 'not needed where there is a model.safetensors',
  'onnx/model.onnx': 'not needed',
  'README.md': 'not needed',
}
const variables = [
  ...['HF_ENDPOINT', 'HF_HOME', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'XDG_CACHE_HOME', 'HF_TOKEN', 'HF_TOKEN_PATH', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'HF_HUB_DISABLE_IMPLICIT_TOKEN'],
  ...['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy', 'NODE_USE_ENV_PROXY'],
]

/** A server and an environment that knows nothing but it. */
async function setUp(t: Test, content: Record<string, string | Buffer> = files, large = ['model.safetensors']) {
  const before = Object.fromEntries(variables.map(name => [name, process.env[name]]))
  const server = await HubServer.start(content, large)
  const home = t.testdir()
  for (const name of variables) delete process.env[name]
  process.env['HF_ENDPOINT'] = server.endpoint
  process.env['HF_HOME'] = home
  t.teardown(async () => {
    for (const name of variables) {
      if (before[name] === undefined) delete process.env[name]
      else process.env[name] = before[name]
    }
    await server.close()
  })
  const repository = join(home, 'hub', 'models--someone--some-model')
  return { server, home, repository, blobs: join(repository, 'blobs'), resolve: (options?: SourceOptions) => resolveSource(server.id, options) }
}

const parts = async (blobs: string) => (await readdir(blobs)).filter(name => name.endsWith('.incomplete'))

/** Fills a cache as Python's library does: without marks for what does not exist. Gives the snapshot. */
async function asPython(repository: string, commit: string, content: Record<string, string | Buffer>): Promise<string> {
  const snapshot = join(repository, 'snapshots', commit)
  for (const folder of [snapshot, join(repository, 'blobs'), join(repository, 'refs')]) await mkdir(folder, { recursive: true })
  for (const [name, bytes] of Object.entries(content)) {
    const hash = name === 'model.safetensors' ? sha256(Buffer.from(bytes)) : gitHash(Buffer.from(bytes))
    await writeFile(join(repository, 'blobs', hash), bytes)
    await symlink(join('..', '..', 'blobs', hash), join(snapshot, name))
  }
  await writeFile(join(repository, 'refs', 'main'), commit)
  return snapshot
}

/** Waits until a part file has `size` bytes. */
async function partOf(blobs: string, size: number): Promise<void> {
  for (;;) {
    for (const part of await parts(blobs).catch(() => [])) if ((await stat(join(blobs, part)).catch(() => ({ size: 0 }))).size >= size) return
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

t.test('into the cache, and from it', async t => {
  const { server, repository, blobs, resolve } = await setUp(t)
  const written: unknown[] = []
  const write = process.stdout.write
  const events: ProgressEvent[] = []
  process.stdout.write = ((piece: unknown) => written.push(piece) > 0) as typeof write
  const { folder, revision } = await resolve({ onProgress: event => events.push(event) }).finally(() => (process.stdout.write = write))
  t.same(written, [], 'nothing on stdout')
  t.equal(revision, server.commit)
  t.equal(folder, join(repository, 'snapshots', server.commit))
  const wanted = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
  t.same((await readdir(folder)).sort(), wanted, 'only the files needed')
  t.same([...new Set(server.sent())].sort(), wanted)
  for (const name of wanted) {
    const content = Buffer.from(files[name as keyof typeof files])
    t.ok(content.equals(await readFile(join(folder, name))), name)
    t.equal(await readlink(join(folder, name)), join('..', '..', 'blobs', name === 'model.safetensors' ? sha256(content) : gitHash(content)))
  }
  t.equal(await readFile(join(repository, 'refs', 'main'), 'utf8'), server.commit)
  t.ok((await readdir(join(repository, '.no_exist', server.commit))).includes('modules.json'))
  t.same(await parts(blobs), [])

  const ofWeights = events.filter(event => 'file' in event && event.file === 'model.safetensors')
  t.same(ofWeights.map(event => event.status).filter((status, i, all) => status !== all[i - 1]), ['initiate', 'download', 'progress', 'done'])
  t.match(ofWeights.at(-2), { status: 'progress', name: server.id, file: 'model.safetensors', progress: 100, loaded: 400_000, total: 400_000 })

  server.requests.length = 0
  const again: ProgressEvent[] = []
  t.same(await resolve({ onProgress: event => again.push(event) }), { folder, revision })
  t.same(server.requests, [], 'what is complete asks nobody')
  t.same([...new Set(again.map(event => event.status))], ['initiate', 'done'])
  await server.close()
  t.same(await resolve(), { folder, revision }, 'nor does it need a network')
  t.same(await resolve({ localFilesOnly: true, revision: server.commit }), { folder, revision })
})

t.test('groups of files', async t => {
  const { server, resolve } = await setUp(t)
  const { folder } = await resolve({ files: ['tokenizer'] })
  t.same((await readdir(folder)).sort(), ['tokenizer.json', 'tokenizer_config.json'])
  server.requests.length = 0
  await resolve({ files: ['tokenizer'] })
  t.same(server.requests, [])
  await resolve({ files: ['config', 'weights'] })
  t.same((await readdir(folder)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'])
})

t.test('folders and files are taken as they are; what is neither is said to be', async t => {
  const { server, home } = await setUp(t)
  t.same(await resolveSource(home), { folder: home })
  for (const source of ['./nothing', '/nothing/here', 'a/b/c', '../x', 'a\\b', 'a--b/c', 'a/..', '.hidden/x', 'https://huggingface.co/a/b', '', 'x'.repeat(97)]) {
    await t.rejects(resolveSource(source), { name: 'CheckpointError', message: /no Hub id|expected a folder or a Hub id/ }, JSON.stringify(source))
  }
  t.same(server.requests, [])
})

t.test('which weights', async t => {
  t.test('.bin only where there is nothing better', async t => {
    const { resolve } = await setUp(t, { 'config.json': '{}', 'pytorch_model.bin': 'x', 'flax_model.msgpack': 'x', 'tf_model.h5': 'x' }, [])
    t.same((await readdir((await resolve()).folder)).sort(), ['config.json', 'pytorch_model.bin'])
  })
  t.test('shards, safetensors before .bin', async t => {
    const index = JSON.stringify({ weight_map: { a: 'model-1.safetensors', b: 'model-2.safetensors', c: 'model-1.safetensors' } })
    const content = { 'config.json': '{}', 'model.safetensors.index.json': index, 'model-1.safetensors': 'one', 'model-2.safetensors': 'two', 'pytorch_model.bin': 'x' }
    const { server, resolve } = await setUp(t, content, [])
    t.same((await readdir((await resolve()).folder)).sort(), ['config.json', 'model-1.safetensors', 'model-2.safetensors', 'model.safetensors.index.json'])
    server.requests.length = 0
    await resolve()
    t.same(server.requests, [])
  })
  t.test('shards that are not there or lead outside', async t => {
    const { server, resolve } = await setUp(t, { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"a":"one.safetensors"}}' }, [])
    await t.rejects(resolve(), { name: 'CheckpointError', message: /names files that are not there: one.safetensors/ })
    server.files.set('model.safetensors.index.json', Buffer.from('{"weight_map":{"a":"../../../../x"}}'))
    await t.rejects(resolve(), { name: 'CheckpointError', message: /weight_map has the file name "..\/..\/..\/..\/x"/ })
  })
  t.test('a name of its own', async t => {
    const { server, resolve } = await setUp(t, { 'ViT-B-32.pt': 'x', 'README.md': 'x' }, [])
    t.same(await readdir((await resolve()).folder), ['ViT-B-32.pt'])
    server.requests.length = 0
    await resolve()
    t.same(server.requests, [])
    server.files.set('RN50.pt', Buffer.from('y'))
    await t.rejects(resolve({ revision: 'other' }), { name: 'CheckpointError', message: /several weight files/ })
  })
  t.test('modules in folders', async t => {
    const modules = JSON.stringify([{ path: '', type: 'Transformer' }, { path: '1_Pooling', type: 'Pooling' }, { path: '2_Dense', type: 'Dense' }])
    const content = { 'modules.json': modules, 'config.json': '{}', 'model.safetensors': 'x', '1_Pooling/config.json': '{}', '2_Dense/config.json': '{}', '2_Dense/model.safetensors': 'y', '2_Dense/pytorch_model.bin': 'z', '3_Other/config.json': '{}' }
    const { server, repository, resolve } = await setUp(t, content, ['2_Dense/model.safetensors'])
    const { folder } = await resolve()
    t.same((await readdir(folder)).sort(), ['1_Pooling', '2_Dense', 'config.json', 'model.safetensors', 'modules.json'])
    t.same((await readdir(join(folder, '2_Dense'))).sort(), ['config.json', 'model.safetensors'])
    t.match(await readlink(join(folder, '2_Dense', 'model.safetensors')), /^\.\.[/\\]\.\.[/\\]\.\.[/\\]blobs/)
    server.requests.length = 0
    await resolve()
    t.same(server.requests, [])
    await rm(repository, { recursive: true })
    server.files.set('modules.json', Buffer.from('[{"path":"../../outside","type":"Pooling"}]'))
    await t.rejects(resolve(), { name: 'CheckpointError', message: /file name "..\/..\/outside"/ })
  })

  t.test('modules without a model at the top', async t => {
    const modules = JSON.stringify([{ path: '0_CLIPModel', type: 'sentence_transformers.models.CLIPModel' }])
    const content = { 'modules.json': modules, '0_CLIPModel/config.json': '{}', '0_CLIPModel/model.safetensors': 'x', '0_CLIPModel/tokenizer.json': '{}' }
    const { server, resolve } = await setUp(t, content, ['0_CLIPModel/model.safetensors'])
    const { folder } = await resolve()
    t.same((await readdir(join(folder, '0_CLIPModel'))).sort(), ['config.json', 'model.safetensors', 'tokenizer.json'])
    server.requests.length = 0
    await resolve()
    t.same(server.requests, [], 'the cache is known to be complete')
  })
})

t.test('a connection that breaks', async t => {
  t.test('is taken up again in the same call', async t => {
    const { server, blobs, resolve } = await setUp(t)
    server.cuts.set('model.safetensors', [150_000, 100_000])
    const { folder } = await resolve()
    t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))))
    const asked = server.requests.filter(({ host }) => host === 'cdn').map(({ headers }) => headers.range)
    t.equal(asked.length, 3)
    t.equal(asked[0], undefined)
    t.match(asked[1], /^bytes=\d{2,}-399999$/)
    t.ok(Number(/=(\d+)/.exec(asked[2]!)![1]) > Number(/=(\d+)/.exec(asked[1]!)![1]), 'each goes on where the last one ended')
    t.same(await parts(blobs), [])
  })
  t.test('and in a later one', async t => {
    const { server, blobs, resolve } = await setUp(t)
    server.cuts.set('model.safetensors', [200_000, ...new Array<number>(4).fill(0)])
    await t.rejects(resolve(), { name: 'CheckpointError', message: /model\.safetensors of someone\/some-model breaks again and again, last at byte \d+ of 400000/ })
    t.equal((await parts(blobs)).length, 1)
    const size = (await stat(join(blobs, (await parts(blobs))[0]!))).size
    t.ok(size > 0 && size <= 200_000)
    server.requests.length = 0
    const { folder } = await resolve()
    t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))))
    t.equal(server.requests.find(({ host }) => host === 'cdn')!.headers.range, `bytes=${size}-399999`)
    t.same(server.sent().filter(name => name !== 'model.safetensors'), [], 'what was whole is not fetched again')
    t.same(await parts(blobs), [])
  })
  t.test('a part that is wrong is thrown away', async t => {
    const { server, blobs, resolve } = await setUp(t)
    await mkdir(blobs, { recursive: true })
    await writeFile(join(blobs, `${sha256(files['model.safetensors'])}.chiasma.incomplete`), 'something else')
    const { folder } = await resolve()
    t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))))
    t.same(server.requests.filter(({ host }) => host === 'cdn').map(({ headers }) => headers.range), ['bytes=14-399999', undefined])
  })
  t.test('a part that is too long, or whole already', async t => {
    const { server, blobs, resolve } = await setUp(t)
    await mkdir(blobs, { recursive: true })
    const part = join(blobs, `${sha256(files['model.safetensors'])}.chiasma.incomplete`)
    await writeFile(part, Buffer.concat([files['model.safetensors'], Buffer.from('x')]))
    await resolve()
    t.same(server.requests.filter(({ host }) => host === 'cdn').map(({ headers }) => headers.range), [undefined])
    await rm(join(blobs, sha256(files['model.safetensors'])))
    await writeFile(part, files['model.safetensors'])
    server.requests.length = 0
    await resolve()
    t.same(server.requests.filter(({ host }) => host === 'cdn'), [])
  })
  t.test('a server that does not do ranges', async t => {
    const { server, resolve } = await setUp(t)
    server.ranges = false
    server.cuts.set('model.safetensors', [150_000])
    const { folder } = await resolve()
    t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))))
  })
  t.test('nor ever sends the whole', async t => {
    const { server, resolve } = await setUp(t)
    server.ranges = false
    server.cuts.set('model.safetensors', new Array<number>(20).fill(150_000))
    await t.rejects(resolve(), { name: 'CheckpointError', message: /breaks again and again, last at byte \d+ of 400000/ })
  })
  t.test('with wrong content at last', async t => {
    const { server, resolve } = await setUp(t)
    server.tamper = entry => (entry['lfs'] ? { ...entry, lfs: { ...(entry['lfs'] as object), oid: '1'.repeat(64) } } : entry)
    server.cuts.set('model.safetensors', new Array<number[]>(10).fill([150_000, Infinity]).flat())
    await t.rejects(resolve({ revision: 'd'.repeat(40) }), { name: 'CheckpointError', message: /has the hash/ })
    t.equal(server.requests.filter(({ host }) => host === 'cdn').length, 4, 'one more attempt')
  })
  t.test('a server that is busy for a moment', async t => {
    const { server, resolve } = await setUp(t)
    let busy = 2
    server.refuse = () => (busy-- > 0 ? { status: 503 } : undefined)
    await resolve()
    server.refuse = () => ({ status: 500 })
    await t.rejects(resolve({ revision: 'other' }), { name: 'CheckpointError', message: /answered with status 500/ })
  })
})

t.test('what comes is checked', async t => {
  const { server, blobs, repository, resolve } = await setUp(t)
  const honest = server.tamper
  const other = sha256(randomBytes(8))
  server.tamper = entry => (entry['lfs'] ? { ...entry, lfs: { ...(entry['lfs'] as object), oid: other } } : entry)
  await t.rejects(resolve(), { name: 'CheckpointError', message: new RegExp(`model\\.safetensors of .* has the hash ${sha256(files['model.safetensors'])}; .* ${other}`) })
  t.notOk((await readdir(blobs)).some(name => name.startsWith(other)), 'nothing of it stays')
  server.tamper = entry => (entry['path'] === 'config.json' ? { ...entry, oid: '1'.repeat(40) } : entry)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /config\.json of .* has the hash/ }, 'small files, too')
  server.tamper = entry => (entry['path'] === 'config.json' ? { ...entry, size: 5 } : entry)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /config\.json of .* has more than 5 bytes/ })
  server.tamper = entry => (entry['path'] === 'config.json' ? { ...entry, size: 5000 } : entry)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /config\.json/ })
  for (const change of [{ oid: '../../../../evil' }, { oid: undefined }, { size: -1 }, { size: 'many' }, { size: 1e300 }]) {
    server.tamper = entry => (entry['path'] === 'config.json' ? { ...entry, ...change } : entry)
    await t.rejects(resolve(), { name: 'CheckpointError', message: /no valid hash and size of config.json/ }, JSON.stringify(change))
  }
  for (const path of ['../evil', '/evil', 'a/../../evil', 'C:\\evil']) {
    server.tamper = entry => (entry['path'] === 'config.json' ? { ...entry, path } : entry)
    await t.rejects(resolve(), { name: 'CheckpointError', message: /the Hub's list of someone\/some-model has the file name/ }, path)
  }
  t.notOk(await stat(join(repository, 'snapshots')).catch(() => undefined), 'no snapshot was made')
  server.tamper = honest
  server.refuse = ({ path }) => (path.startsWith('/api') ? { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Please log in to this network</html>' } : undefined)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /is not understood/ })
  server.refuse = ({ path }) => (path.startsWith('/api') ? { status: 200, headers: { 'content-type': 'application/json' }, body: '{}' } : undefined)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /is not understood/ })
  server.refuse = ({ path }) => (path.startsWith('/api') ? { status: 200, headers: { 'content-type': 'application/json' }, body: '[null]' } : undefined)
  await t.rejects(resolve(), { name: 'CheckpointError', message: /is not understood/ })
  server.refuse = undefined
  await resolve()
})

t.test('a tree of evil names', async t => {
  const { server, resolve } = await setUp(t, { 'weights.safetensors': 'x' }, [])
  server.tamper = entry => ({ ...entry, path: '../../weights.safetensors' })
  await t.rejects(resolve(), { name: 'CheckpointError', message: /the Hub's list of .* has the file name "..\/..\/weights.safetensors"/ })
})

t.test('who may', async t => {
  const { server, home, resolve } = await setUp(t)
  const page = `${server.endpoint}/${server.id}`
  const withHeader = (status: number, code: string) => () => ({ status, headers: { 'x-error-code': code, 'x-error-message': 'Access to model is restricted.' } })
  server.refuse = withHeader(403, 'GatedRepo')
  await t.rejects(resolve(), { name: 'CheckpointError', message: new RegExp(`gated and no token was sent; accept its licence at ${page}, .*HF_TOKEN.*Access to model is restricted`) })
  process.env['HF_TOKEN'] = 'hf_secret'
  const error = (await resolve().catch((e: unknown) => e)) as CheckpointError
  t.match(error.message, new RegExp(`the token that was sent does not give access to it; accept its licence at ${page}`))
  t.notMatch(`${error.message}${error.stack}${JSON.stringify(error)}`, /hf_secret/)
  server.refuse = withHeader(401, 'RepoNotFound')
  await t.rejects(resolve(), { message: new RegExp(`private, gated or not there.*${page}`) })
  server.refuse = () => ({ status: 403 })
  await t.rejects(resolve(), { message: new RegExp(page) }, 'a mirror need not send a code')
  server.refuse = withHeader(404, 'RepoNotFound')
  await t.rejects(resolve(), { message: /someone\/some-model is not on http.*and no folder of that name is here/ })
  server.refuse = withHeader(404, 'RevisionNotFound')
  await t.rejects(resolve({ revision: 'v9' }), { message: /has no revision v9/ })
  // Listings may be open while files are not.
  server.refuse = request => (request.path.includes('/resolve/') ? withHeader(403, 'GatedRepo')() : undefined)
  await t.rejects(resolve(), { name: 'CheckpointError', message: new RegExp(`gated .*${page}`) })
  server.refuse = undefined

  t.test('tokens', async t => {
    const seen = async (options: SourceOptions = {}) => {
      await rm(join(home, 'hub'), { recursive: true, force: true })
      server.requests.length = 0
      await resolve(options)
      t.ok(server.requests.some(({ host }) => host === 'cdn'))
      t.notOk(server.requests.some(({ host, headers }) => host === 'cdn' && headers.authorization), 'no token goes to another host')
      return [...new Set(server.requests.filter(({ host }) => host === 'hub').map(({ headers }) => headers.authorization))]
    }
    t.same(await seen(), ['Bearer hf_secret'])
    t.same(await seen({ token: 'given' }), ['Bearer given'], 'of any form')
    process.env['HF_HUB_DISABLE_IMPLICIT_TOKEN'] = '1'
    t.same(await seen(), [undefined])
    delete process.env['HF_HUB_DISABLE_IMPLICIT_TOKEN']
    delete process.env['HF_TOKEN']
    t.same(await seen(), [undefined])
    await writeFile(join(home, 'token'), 'hf_from_home\n')
    t.same(await seen(), ['Bearer hf_from_home'])
    await writeFile(join(home, 'elsewhere'), 'hf_from_path')
    process.env['HF_TOKEN_PATH'] = join(home, 'elsewhere')
    t.same(await seen(), ['Bearer hf_from_path'])
    process.env['HF_TOKEN'] = 'hf_bad\r\nX-Evil: 1'
    const error = (await resolve({ revision: 'z' }).catch((e: unknown) => e)) as CheckpointError
    t.match(error, { name: 'CheckpointError', message: /token has characters that no token has/ })
    t.notMatch(error.message, /hf_bad/)
  })
})

t.test('without a network', async t => {
  const { server, home, repository, resolve } = await setUp(t)
  await t.rejects(resolve({ localFilesOnly: true }), { name: 'CheckpointError', message: /not complete in the cache .* the network is not to be used/ })
  process.env['HF_HUB_OFFLINE'] = '1'
  await t.rejects(resolve(), { message: /the network is not to be used/ })
  t.same(server.requests, [])
  delete process.env['HF_HUB_OFFLINE']
  await server.close()
  const unreached = async () => ((await resolve().catch((e: unknown) => e)) as CheckpointError).message
  t.match(await unreached(), /^http:\/\/127\.0\.0\.1:\d+ could not be reached for someone\/some-model: /)
  t.notMatch(await unreached(), /PROXY/)
  process.env['https_proxy'] = 'http://user:secret@proxy.invalid:3128'
  t.match(await unreached(), /https_proxy is set: .* NODE_USE_ENV_PROXY=1/)
  t.notMatch(await unreached(), /secret/)
  process.env['NODE_USE_ENV_PROXY'] = '1'
  t.notMatch(await unreached(), /PROXY/)

  const { 'config.json': config, 'model.safetensors': weights } = files
  const snapshot = await asPython(repository, server.commit, { 'config.json': config, 'model.safetensors': weights })
  t.same(await resolve(), { folder: snapshot, revision: server.commit })
  t.same(await resolve({ localFilesOnly: true }), { folder: snapshot, revision: server.commit })
  await t.rejects(resolve({ localFilesOnly: true, revision: 'other' }), { message: /revision other\) is not complete/ })
  await rm(join(snapshot, 'model.safetensors'))
  await t.rejects(resolve({ localFilesOnly: true }), { message: /is not complete/ }, 'without weights it is no model')
  await t.rejects(resolve({ revision: '../../main' }), { name: 'CheckpointError', message: /stays inside/ })
  process.env['HF_ENDPOINT'] = 'ftp://x'
  await t.rejects(resolve({ revision: 'other' }), { name: 'CheckpointError', message: /HF_ENDPOINT is "ftp:\/\/x"/ })
  t.ok(home)
})

t.test("open_clip's configuration is one", async t => {
  const content = { 'open_clip_config.json': '{"model_cfg":{}}', 'open_clip_model.safetensors': 'x' }
  const { server, repository, resolve } = await setUp(t, content, [])
  const snapshot = await asPython(repository, server.commit, content)
  t.same(await resolve({ localFilesOnly: true }), { folder: snapshot, revision: server.commit })
})

t.test('a cache of which nothing can be changed', { skip: process.platform === 'win32' && 'no such permissions' }, async t => {
  const { server, resolve } = await setUp(t)
  await resolve()
  const cacheDir = await mkdtemp(join(tmpdir(), 'chiasma-hub-')) // where every user may look
  const repository = join(cacheDir, 'models--someone--some-model')
  const { 'config.json': config, 'model.safetensors': weights, 'tokenizer.json': tokenizer, 'tokenizer_config.json': settings } = files
  const snapshot = await asPython(repository, server.commit, { 'config.json': config, 'model.safetensors': weights, 'tokenizer.json': tokenizer, 'tokenizer_config.json': settings })
  const folders = [cacheDir, repository, ...['blobs', 'refs', 'snapshots'].map(name => join(repository, name)), snapshot]
  for (const folder of folders) await chmod(folder, 0o555)
  server.requests.length = 0
  const user = process.geteuid!()
  if (user === 0) process.seteuid!(65534) // permissions are nothing to root
  try {
    t.same(await resolve({ cacheDir }), { folder: snapshot, revision: server.commit })
    t.ok(server.requests.length > 0, 'the network was asked')
    t.same((await readdir(repository)).sort(), ['blobs', 'refs', 'snapshots'])
    server.files.set('special_tokens_map.json', Buffer.from('{}'))
    await t.rejects(resolve({ cacheDir }), { name: 'CheckpointError', message: /the cache .* cannot be written: EACCES/ }, 'a file that is missing is said')
  } finally {
    process.seteuid!(user)
    for (const folder of folders) await chmod(folder, 0o755)
    await rm(cacheDir, { recursive: true })
  }
})

t.test('where the cache is', async t => {
  const { home, server, resolve } = await setUp(t, { 'config.json': '{}', 'model.safetensors': 'x' }, [])
  const under = async (folder: string, options?: SourceOptions) => t.equal((await resolve(options)).folder, join(folder, 'models--someone--some-model', 'snapshots', server.commit))
  await under(join(home, 'a'), { cacheDir: join(home, 'a') })
  process.env['HF_HUB_CACHE'] = join(home, 'b')
  await under(join(home, 'b'))
  delete process.env['HF_HUB_CACHE']
  delete process.env['HF_HOME']
  process.env['XDG_CACHE_HOME'] = join(home, 'c')
  await under(join(home, 'c', 'huggingface', 'hub'))
  const before = process.env['HOME']
  t.teardown(() => void (before === undefined ? delete process.env['HOME'] : (process.env['HOME'] = before)))
  process.env['HOME'] = home
  process.env['XDG_CACHE_HOME'] = '~/d'
  await under(join(home, 'd', 'huggingface', 'hub'))
  process.env['HF_HOME'] = '~/e'
  await under(join(home, 'e', 'hub'))
  process.env['HF_HUB_CACHE'] = '~'
  await under(home)
  process.env['HF_HUB_CACHE'] = join(home, '~')
  await under(join(home, '~'))
})

t.test('revisions', async t => {
  const { server, repository, resolve } = await setUp(t, { 'config.json': '{}', 'model.safetensors': 'x' }, [])
  await resolve({ revision: 'refs/pr/7' })
  t.equal(await readFile(join(repository, 'refs', 'refs', 'pr', '7'), 'utf8'), server.commit)
  t.ok(server.requests.every(({ path }) => path.includes('refs%2Fpr%2F7')))
  const commit = 'd'.repeat(40)
  t.same(await resolve({ revision: commit }), { folder: join(repository, 'snapshots', commit), revision: commit })
  t.notOk(await stat(join(repository, 'refs', commit)).catch(() => undefined))

  // All blobs are here already; the commit is asked for, or taken from the listing.
  server.commit = 'e'.repeat(40)
  t.equal((await resolve({ revision: 'v2' })).revision, server.commit)
  server.namesCommit = false
  t.equal((await resolve({ revision: 'v3' })).revision, server.commit)
  server.tamper = entry => ({ ...entry, lastCommit: undefined })
  const { revision: made } = await resolve({ revision: 'v4' })
  t.match(made, /^[0-9a-f]{40}$/, 'a mirror that names no commit')
  t.equal((await resolve({ revision: 'v5' })).revision, made)
  server.tamper = entry => ({ ...entry, lastCommit: { id: '../../evil', date: '2024-01-01' } })
  t.equal((await resolve({ revision: 'v6' })).revision, made)
})

t.test('a branch that moves in the middle', async t => {
  const { server, resolve } = await setUp(t, { 'config.json': '{}', 'model.safetensors': 'old' }, [])
  server.refuse = ({ path }) => {
    if (path.endsWith('model.safetensors')) {
      server.commit = 'f'.repeat(40)
      server.files.set('config.json', Buffer.from('{"new":1}'))
    }
    return undefined
  }
  const { folder } = await resolve()
  t.equal(folder.slice(-40), 'f'.repeat(40))
  t.equal(await readFile(join(folder, 'config.json'), 'utf8'), '{"new":1}')
})

t.test('at the same time', async t => {
  const { server, home, blobs, resolve } = await setUp(t)
  const results = await Promise.all([resolve(), resolve({ files: ['weights'] }), resolve({ files: ['config', 'weights'] })])
  t.equal(new Set(results.map(({ folder }) => folder)).size, 1)
  // Who finds the blob there asks for one byte, to learn the commit.
  const whole = server.requests.filter(({ host, headers }) => host === 'cdn' && headers.range !== 'bytes=0-0')
  t.equal(whole.length, 1, 'one thread fetches a file once')
  await rm(join(home, 'hub'), { recursive: true })
  server.slowness = 200
  const other = child(server.id, {})
  await partOf(blobs, 1)
  server.slowness = 5
  const [{ code, stdout, stderr }] = await Promise.all([other.done, resolve()])
  t.equal(code, 0, stderr)
  t.equal(stdout, '')
  t.ok(files['model.safetensors'].equals(await readFile(join(blobs, sha256(files['model.safetensors'])))))
  t.same(await parts(blobs), [])
})

t.test('other writers', async t => {
  const weights = files['model.safetensors']
  t.test("the part file of Python's library is its own", async t => {
    const { blobs, resolve } = await setUp(t)
    await mkdir(blobs, { recursive: true })
    const part = join(blobs, `${sha256(weights)}.incomplete`)
    await writeFile(part, weights.subarray(0, 1000))
    const other = await open(part, 'a')
    t.teardown(() => other.close())
    const resolved = resolve({ onProgress: ({ status }) => void (status === 'progress' && other.write(weights.subarray(1000, 2000))) })
    t.ok(weights.equals(await readFile(join((await resolved).folder, 'model.safetensors'))))
    t.same(await parts(blobs), [`${sha256(weights)}.incomplete`])
  })
  t.test('a process that looks gone, but is there', async t => {
    const { server, blobs, resolve } = await setUp(t)
    server.slowness = 200
    const resolved = resolve()
    await partOf(blobs, 70_000)
    // As another process takes it.
    await rename(join(blobs, (await parts(blobs)).find(name => name.startsWith(sha256(weights)))!), join(blobs, `${sha256(weights)}.chiasma.incomplete`))
    const other = child(server.id, {})
    const [{ folder }, { code, stderr }] = await Promise.all([resolved, other.done])
    t.equal(code, 0, stderr)
    t.ok(weights.equals(await readFile(join(folder, 'model.safetensors'))))
    t.same(await parts(blobs), [])
  })
  t.test('a part file that is taken and not finished', async t => {
    const { server, blobs, resolve } = await setUp(t)
    server.slowness = 100
    const resolved = resolve()
    await partOf(blobs, 70_000)
    await rename(join(blobs, (await parts(blobs)).find(name => name.startsWith(sha256(weights)))!), join(blobs, 'taken'))
    server.slowness = 0
    t.ok(weights.equals(await readFile(join((await resolved).folder, 'model.safetensors'))))
    t.same(await parts(blobs), [])
  })
})

t.test('a process that is killed', async t => {
  const { server, blobs, resolve } = await setUp(t)
  server.slowness = 100
  const victim = child(server.id, {})
  await partOf(blobs, 100_000)
  victim.process.kill('SIGKILL')
  await victim.done
  server.slowness = 0
  server.requests.length = 0
  const { folder } = await resolve()
  t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))))
  t.match(server.requests.find(({ host }) => host === 'cdn')!.headers.range, /^bytes=\d{5,}-399999$/, 'the next one goes on from there')
  t.same(await parts(blobs), [])
})

t.test('stopping', async t => {
  const { server, blobs, resolve } = await setUp(t)
  server.slowness = 200
  const stop = new AbortController()
  const reason = new Error('enough')
  let aborted = 0
  const abort = () => {
    aborted ||= performance.now()
    stop.abort(reason)
  }
  const other = resolve()
  await t.rejects(resolve({ signal: stop.signal, onProgress: ({ status }) => void (status === 'initiate' && setTimeout(abort, 100)) }), reason)
  t.ok(performance.now() - aborted < 1000, 'at once')
  const { folder } = await other
  t.ok(files['model.safetensors'].equals(await readFile(join(folder, 'model.safetensors'))), 'another call for the same file is not stopped')
  t.same(await parts(blobs), [])
  await t.rejects(resolve({ signal: AbortSignal.abort(reason) }), reason)
})

t.test('a cache that cannot be written', async t => {
  const { home, resolve } = await setUp(t)
  await writeFile(join(home, 'file'), '')
  await t.rejects(resolve({ cacheDir: join(home, 'file') }), { name: 'CheckpointError', message: /the cache .* cannot be written/ })
})

function child(source: string, options: SourceOptions) {
  const script = join(dirname(dirname(fileURLToPath(import.meta.url))), 'support', 'resolve-source.ts')
  const process_ = spawn(process.execPath, [...process.execArgv, script, source, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  process_.stdout.on('data', (piece: Buffer) => (stdout += piece.toString()))
  process_.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()))
  const done = new Promise<{ code: number | null; stdout: string; stderr: string }>(resolve => process_.on('close', code => resolve({ code, stdout, stderr })))
  return { process: process_, done }
}
