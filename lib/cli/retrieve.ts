// chiasma retrieve: Recall@K on a file of image and text pairs.

import { createReadStream } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { ArgumentError } from '../core/errors.js'
import { Matcher } from '../embed/matcher.js'
import { evaluateRetrieval, type RecallAtK, type RetrievalData } from '../embed/retrieval.js'
import { linesOf } from '../io/lines.js'
import { print } from './console.js'
import { type ModelOptions, loadOptions, withModel } from './options.js'

interface RetrieveOptions extends ModelOptions {
  pairs: string
  k: number[]
  json?: boolean
}

export function define(command: Command): void {
  withModel(command)
    .requiredOption('--pairs <file>', 'lines of an image path, a tab and a text; paths are relative to the file; an image may have several lines')
    .option('-k <a,b,c>', 'how many of the best are looked at', kList, [1, 5, 10])
    .option('--json', 'print {images, texts, imageToText: [{k, recall}], textToImage: [{k, recall}]} on stdout')
    .action(run)
}

async function run({ pairs, k, json, ...options }: RetrieveOptions): Promise<void> {
  const data = await readPairs(pairs)
  await using matcher = await Matcher.fromPretrained(options.model, loadOptions(options))
  const report = await evaluateRetrieval(matcher, data, { ks: k })
  if (json) return print(JSON.stringify(report))
  const line = (recalls: readonly RecallAtK[]) => recalls.map(({ k, recall }) => `R@${k} ${(100 * recall).toFixed(1)}%`).join('  ')
  await print(`${report.images} images, ${report.texts} texts`)
  await print(`image to text  ${line(report.imageToText)}`)
  await print(`text to image  ${line(report.textToImage)}`)
}

/** @throws ArgumentError naming the line that is no pair */
async function readPairs(file: string): Promise<RetrievalData> {
  const images = new Map<string, number>()
  const texts: string[] = []
  const imageOfText: number[] = []
  const input = createReadStream(file)
  let number = 0
  try {
    for await (const line of linesOf(input)) {
      number++
      if (line.trim() === '') continue
      const tab = line.indexOf('\t')
      if (tab < 1 || line.slice(tab + 1).trim() === '') throw new ArgumentError(`${file}: line ${number} is no pair; expected an image path, a tab and a text`, { file, index: number - 1 })
      const path = resolve(dirname(file), line.slice(0, tab))
      if (!images.has(path)) images.set(path, images.size)
      texts.push(line.slice(tab + 1).trim())
      imageOfText.push(images.get(path)!)
    }
  } catch (cause) {
    throw cause instanceof ArgumentError ? cause : new ArgumentError(`${file} cannot be read: ${(cause as Error).message}`, { file, cause })
  } finally {
    input.destroy()
  }
  if (texts.length === 0) throw new ArgumentError(`${file} holds no pairs; expected lines of an image path, a tab and a text`, { file })
  return { images: [...images.keys()], texts, imageOfText }
}

function kList(text: string): number[] {
  const ks = text.split(',').map(Number)
  if (!ks.every(k => Number.isSafeInteger(k) && k > 0)) throw new InvalidArgumentError('expected positive integers separated by commas')
  return ks
}
