// Matching pictures and texts, and retrieval: scores are those of the model's forward on the processor's and tokenizer's results.

import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
import { Embedder } from '../../lib/embed/embedder.js'
import { Matcher } from '../../lib/embed/matcher.js'
import { evaluateRetrieval, recallAtK } from '../../lib/embed/retrieval.js'
import { cli } from '../support/cli.js'
import { difference, fixture } from '../support/models.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'cat', 'dog', 'tall', 'house', 'river', 'red', 'boat']
const TEXTS = ['a cat', 'a tall red house', 'dog', 'a river boat river boat']

/** A checkpoint of the fixture with a processor and a tokenizer of a few words. */
async function checkpoint(t: Test, name: string, processor: object): Promise<{ folder: string; images: string[] }> {
  const { folder, remove } = await temporaryFolder()
  t.teardown(remove)
  const model = join(folder, name)
  await mkdir(model)
  for (const file of ['config.json', 'model.safetensors']) await cp(join(fixture(name), file), join(model, file))
  await writeFile(join(model, 'preprocessor_config.json'), JSON.stringify(processor))
  await writeFile(join(model, 'vocab.txt'), WORDS.join('\n'))
  await writeFile(join(model, 'tokenizer_config.json'), JSON.stringify({ tokenizer_class: 'BertTokenizer', model_max_length: 14 }))
  return { folder: model, images: [...(await writePictures(folder, 3)), ...(await writePictures(join(folder, 'wide'), 1, 57))] }
}

const KINDS = [
  ['blip-itm-odd', { image_processor_type: 'BlipImageProcessor', size: { height: 29, width: 29 } }, 'probability', 'itm_prob', 1],
  ['vilt-retrieval', { image_processor_type: 'ViltImageProcessor', size: { shortest_edge: 24 }, size_divisor: 8 }, 'logit', 'logits', 0],
] as const

for (const [name, processorConfig, kind, output, column] of KINDS) {
  await t.test(name, async t => {
    const { folder, images } = await checkpoint(t, name, processorConfig)
    await using matcher = await Matcher.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    t.equal(matcher.scoreKind, kind)
    const scores = await matcher.scores(images, TEXTS)
    t.strictSame(scores.dims, [4, 4])
    const processor = await AutoProcessor.fromPretrained(folder)
    const tokenizer = await AutoTokenizer.fromPretrained(folder)
    for (const [i, image] of images.entries()) {
      for (const [j, text] of TEXTS.entries()) {
        const { input_ids, attention_mask } = tokenizer([text])
        const outputs = await matcher.model.forward({ input_ids, attention_mask, ...(await processor(image)) }, { outputs: [output] })
        t.ok(Math.abs((outputs[output]!.data[column] as number) - (scores.data[i * 4 + j] as number)) < 1e-5, `${i} ${j}`)
      }
    }
    // Texts that look at one picture together do not change one another's scores, in whatever order and company.
    for (const [j, text] of TEXTS.entries()) t.equal((await matcher.scores([images[0]!], [text])).data[0], scores.data[j], 'the same bits alone')
    const many = Array.from({ length: 40 }, (_, i) => TEXTS[(i * 3 + 1) % 4]!)
    const more = await matcher.scores([images[1]!], many)
    t.strictSame([...more.data], many.map(text => scores.data[4 + TEXTS.indexOf(text)]), 'the same bits among others')
    const broken = join(folder, 'config.json')
    const found = []
    for await (const result of matcher.match([images[0]!, broken, images[3]!], TEXTS, { topK: 2 })) found.push(result)
    t.equal(found[0]!.matches!.length, 2)
    t.ok(found[0]!.matches![0]!.score >= found[0]!.matches![1]!.score)
    t.match(found[1], { index: 1, error: { code: 'ERR_IMAGE' } })
    t.equal(found[2]!.matches![0]!.score, Math.max(...(scores.data.subarray(12, 16) as Float32Array)))
    await t.rejects(matcher.scores([images[0]!, broken], TEXTS), { code: 'ERR_IMAGE', index: 1 })
    await t.rejects(matcher.scores([images[0]!, images.slice(1)] as string[], TEXTS), { code: 'ERR_ARGUMENT', index: 1, message: /an image is an object of class Array/ })
    await t.rejects(matcher.scores(images, []), { code: 'ERR_ARGUMENT', field: 'texts' })
    await t.rejects(matcher.scores('x' as never, TEXTS), { code: 'ERR_ARGUMENT', field: 'images' })

    const pairs = join(folder, 'pairs.tsv')
    await writeFile(pairs, `\ufeff${images.map((image, i) => `${image}\t${TEXTS[i]}`).join('\r\n')}`)
    const report = await evaluateRetrieval(matcher, { images, texts: TEXTS, imageOfText: [0, 1, 2, 3] }, { ks: [1, 4] })
    t.equal(report.textToImage[1]!.recall, 1)
    const { stdout, code } = await cli('retrieve', '--pairs', pairs, '--model', folder, '-k', '1,4', '--json', '--dtype', 'f32', '--device', 'cpu')
    t.equal(code, 0)
    t.strictSame(JSON.parse(stdout), JSON.parse(JSON.stringify(report)))
    const matched = await cli('match', images[0]!, images[3]!, '--model', folder, '--texts', TEXTS.join(','), '-k', '1', '--json', '--dtype', 'f32', '--device', 'cpu')
    t.strictSame((JSON.parse(matched.stdout) as { matches: { text: string }[] }[]).map(({ matches }) => matches[0]!.text), [found[0]!.matches![0]!.text, found[2]!.matches![0]!.text])
  })
}

t.test('a dual encoder matches by cosines', async t => {
  const { folder, remove } = await temporaryFolder()
  t.teardown(remove)
  const model = await writeTinyClip(folder)
  const images = await writePictures(folder, 5)
  const texts = ['a cat', 'dog', 'zebra']
  await using matcher = await Matcher.fromPretrained(model, { device: 'cpu', dtype: 'f32' })
  t.equal(matcher.scoreKind, 'cosine')
  const scores = await matcher.scores(images, texts)
  await using embedder = await Embedder.fromPretrained(model, { device: 'cpu', dtype: 'f32' })
  const [pictures, words] = [await embedder.embedImages(images), await embedder.embedTexts(texts)]
  const width = embedder.dimensions
  const expected = Float32Array.from({ length: 15 }, (_, i) => {
    let dot = 0
    for (let c = 0; c < width; c++) dot += (pictures.data[Math.floor(i / 3) * width + c] as number) * (words.data[(i % 3) * width + c] as number)
    return dot
  })
  t.ok(difference(scores, new Tensor('float32', expected, [5, 3])).max < 1e-5)
  const outcomes = []
  for await (const outcome of matcher.match([images[0]!, images[1]!, join(folder, 'absent.jpg')], texts)) outcomes.push(outcome)
  t.match(outcomes[2], { index: 2, error: { name: 'ImageError', message: /^input 2: (?!input)/ } })
  const bad = join(folder, 'bad.tsv')
  await writeFile(bad, 'no tab here\n')
  const { code, stderr } = await cli('retrieve', '--pairs', bad, '--model', model)
  t.equal(code, 1)
  t.match(stderr, /line 1 is no pair/)
  t.match(await cli('retrieve', '--pairs', folder, '--model', model), { code: 1, stderr: /cannot be read: .*EISDIR/ })
  t.equal((await cli('match', images[0]!, '--model', model)).code, 2)
})

t.test('Recall@K', async t => {
  const scores = new Tensor('float32', Float32Array.from([9, 1, 2, 3, 5, 5, 0, 5, 1, 2, 3, 4]), [3, 4])
  t.strictSame(recallAtK(scores, [[0], [3], [1, 0]], [1, 2, 3, 4]), [
    { k: 1, recall: 1 / 3 },
    { k: 2, recall: 1 / 3 },
    { k: 3, recall: 1 },
    { k: 4, recall: 1 },
  ])
  t.strictSame(recallAtK(scores, [[], [1], [3]], [1]), [{ k: 1, recall: 1 / 3 }], 'a query without an answer is missed')
  t.strictSame(recallAtK(new Tensor('float32', Float32Array.of(NaN, 0.1, 0.2, NaN), [2, 2]), [[0], [0]], [1, 2]), [{ k: 1, recall: 0.5 }, { k: 2, recall: 0.5 }], 'what has no score is missed')
  t.throws(() => recallAtK(scores, [[4], [0], [0]]), { code: 'ERR_ARGUMENT', index: 0 })
  t.throws(() => recallAtK(scores, [[0]]), { code: 'ERR_SHAPE' })
})

t.test('pictures of any aspect ratio', async t => {
  const { folder, images } = await checkpoint(t, 'siglip2-odd', { image_processor_type: 'Siglip2ImageProcessor', patch_size: 3, max_num_patches: 20 })
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as { text_config: { max_position_embeddings: number } }
  t.equal(config.text_config.max_position_embeddings, 8)
  await using embedder = await Embedder.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
  const embeddings = await embedder.embedImages(images, { batchSize: 3 })
  const processor = await AutoProcessor.fromPretrained(folder)
  const { image_embeds } = await embedder.model.forward({ ...(await processor(images)) }, { outputs: ['image_embeds'] })
  t.ok(difference(embeddings, image_embeds!).max < 1e-6)
  const alone = await embedder.embedImages([images[3]!])
  t.strictSame([...alone.data], [...embeddings.data.subarray(3 * 35)], 'the same bits alone')
  t.equal((await embedder.embedTexts(['a cat'])).dims[1], 35)
  const array = { code: 'ERR_ARGUMENT', message: /an image is an object of class Array/ }
  await t.rejects(embedder.embedImages([images[0]!, images.slice(1)] as string[]), { ...array, index: 1 }, 'a list is no image')
  await t.rejects(embedder.embedImages([[], images[0]] as string[]), { ...array, index: 0 })
  const found = []
  for await (const result of embedder.embedStream([images[0]!, join(folder, 'absent.jpg')])) found.push(result)
  t.match(found, [{ index: 0, embedding: Float32Array }, { index: 1, error: { code: 'ERR_IMAGE', index: undefined } }])
  await t.rejects(embedder.embedImages(new Tensor('uint8', new Uint8Array(27), [1, 3, 3, 3])), { code: 'ERR_UNSUPPORTED' })
})
