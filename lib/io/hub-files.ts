// Which files of a repository a model needs: the same question to the Hub and to the cache, so that a complete cache can say that it is.

import { CheckpointError } from '../core/errors.js'
import { chooseWeights, shardFiles } from './checkpoint.js'
import { readSmallFile } from './json.js'
import { parseModules, SETTINGS_FILES } from './modules.js'

/** Groups of files: `config` (config.json and sentence-transformers' module files), `weights`, `tokenizer`, `processor`. */
export type FileGroup = 'config' | 'weights' | 'tokenizer' | 'processor'

const NAMES: Readonly<Record<FileGroup, readonly string[]>> = {
  config: ['config.json', 'open_clip_config.json', 'modules.json', ...SETTINGS_FILES, 'config_sentence_transformers.json'],
  weights: [],
  tokenizer: ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json'],
  processor: ['preprocessor_config.json', 'processor_config.json', 'open_clip_config.json'],
}
/** Taken where there is no tokenizer.json, which has all that in it. */
const OLD_TOKENIZER = ['vocab.json', 'vocab.txt', 'merges.txt']
/** The first one that is there. */
const WEIGHTS = ['model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json']

/** Something that has files: a repository on the Hub, or what the cache has of it. */
export interface FileStore {
  readonly name: string
  /** Those of `paths` that exist. */
  find(paths: readonly string[]): Promise<Set<string>>
  /** The first of `paths` that exists. */
  first(paths: readonly string[]): Promise<string | undefined>
  /** The names at the top. */
  list(): Promise<string[]>
  /** Makes the file be there and gives its local path. */
  get(path: string): Promise<string>
}

/**
 * Gets the files that `groups` need from `store`.
 * @throws CheckpointError if a name leads outside, an index names files that are not there, or there are several candidates for the weights
 */
export async function gather(store: FileStore, groups: readonly FileGroup[]): Promise<void> {
  const found = await gatherFolder(store, '', groups)
  if (!found.has('modules.json')) return
  for (const folder of await moduleFolders(await store.get('modules.json'))) if (folder !== '') await gatherFolder(store, `${folder}/`, groups)
}

async function gatherFolder(store: FileStore, folder: string, groups: readonly FileGroup[]): Promise<Set<string>> {
  const inFolder = (names: readonly string[]) => names.map(name => folder + name)
  const found = await store.find(inFolder(groups.flatMap(group => NAMES[group])))
  const needed = [...found]
  if (groups.includes('tokenizer') && !found.has(`${folder}tokenizer.json`)) needed.push(...(await store.find(inFolder(OLD_TOKENIZER))))
  // Older sentence-transformers folders have nothing but lists at the top.
  const hasModel = folder !== '' || !found.has('modules.json') || (await moduleFolders(await store.get('modules.json'))).includes('')
  if (groups.includes('weights') && hasModel) {
    const usual = await store.first(inFolder(WEIGHTS))
    // Only at the top may the weights have a name of their own; a module's folder need not have any.
    const weights = usual ?? (folder === '' ? chooseWeights(await store.list(), store.name).weights : undefined)
    if (weights !== undefined) needed.push(weights)
    if (weights?.endsWith('.index.json')) {
      const shards = inFolder(await shardFiles(await store.get(weights)))
      const there = await store.find(shards)
      const missing = shards.filter(name => !there.has(name))
      if (missing.length > 0) throw new CheckpointError(`${store.name}: ${weights} names files that are not there: ${missing.join(', ')}`, { file: store.name, missing })
      needed.push(...shards)
    }
  }
  await all(needed, path => store.get(path))
  return found
}

/** Folders of the modules in sentence-transformers' modules.json; '' is the folder itself. */
export async function moduleFolders(file: string): Promise<string[]> {
  const modules = parseModules(await readSmallFile(file, 1_000_000), file)
  return [...new Set(modules.map(({ path }) => path))]
}

const AT_ONCE = 4

/** Runs `work` on all items, a few at once; after a failure no new one is begun, and those under way have ended before it is thrown. */
async function all<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = [...items]
  let failure: { error: unknown } | undefined
  const worker = async () => {
    while (queue.length > 0 && !failure) await work(queue.shift()!).catch((error: unknown) => (failure ??= { error }))
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker))
  if (failure) throw failure.error
}
