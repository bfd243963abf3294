// chiasma match: the texts that go best with each image.

import type { Command } from 'commander'
import { ArgumentError } from '../core/errors.js'
import { type Match, Matcher } from '../embed/matcher.js'
import { print, sayOfItem } from './console.js'
import { imagePaths, readTexts } from './inputs.js'
import { type ModelOptions, labelList, loadOptions, positiveInteger, withModel } from './options.js'

interface MatchCommandOptions extends ModelOptions {
  texts?: string[]
  textsFile?: string
  topK: number
  json?: boolean
}

export function define(command: Command): void {
  withModel(command)
    .argument('<paths...>', 'image files, folders or glob patterns')
    .option('--texts <a,b,c>', 'texts separated by commas', labelList)
    .option('--texts-file <file>', 'texts, one a line, or .jsonl')
    .option('-k, --top-k <n>', 'texts to list for an image', positiveInteger, 5)
    .option('--json', 'print [{item, matches: [{text, index, score}]}] on stdout')
    .action(run)
}

async function run(given: string[], options: MatchCommandOptions): Promise<void> {
  const { textsFile, topK, json } = options
  if ((options.texts === undefined) === (textsFile === undefined)) throw new ArgumentError('match takes --texts or --texts-file, one of the two', { code: 'ERR_USAGE' })
  const texts = options.texts ?? (await readTexts(textsFile!))
  if (texts.length === 0) throw new ArgumentError(`${textsFile} holds no text`, { ...(textsFile && { file: textsFile }) })
  const paths = await imagePaths(given)
  await using matcher = await Matcher.fromPretrained(options.model, loadOptions(options))
  const results: { item: string; matches: Match[] }[] = []
  let failed = 0
  for await (const { index, matches, error } of matcher.match(paths, texts, { topK })) {
    const item = paths[index]!
    if (error) {
      failed++
      sayOfItem(item, error)
    } else if (json) {
      results.push({ item, matches })
    } else {
      await print(`${item}  ${matches.map(({ text, score }) => `${text} ${score.toFixed(3)}`).join(', ')}`)
    }
  }
  if (json) await print(JSON.stringify(results))
  if (failed === paths.length) throw new ArgumentError(`none of the ${paths.length} images could be read`)
}
