// AutoProcessor: which file it reads, and what it says of configurations that are incomplete, absurd or beyond it.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { AutoProcessor } from '../../lib/data/processor.js'
import { readImageRules } from '../../lib/data/image-config.js'
import { makeProcessor } from '../../lib/data/image-processor.js'

async function folderOf(files: Record<string, unknown>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'chiasma-processor-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content))
  }
  return folder
}

const clip = { image_processor_type: 'CLIPImageProcessor' }

t.test('the files it reads', async t => {
  const sized = (size: number) => ({ ...clip, size, crop_size: size })
  const load = async (files: Record<string, unknown>) => (await AutoProcessor.fromPretrained(await folderOf(files))).size
  t.same(await load({ 'preprocessor_config.json': sized(20) }), { width: 20, height: 20 })
  t.same(await load({ 'processor_config.json': { processor_class: 'CLIPProcessor', image_processor: sized(21) } }), { width: 21, height: 21 })
  t.same(await load({ 'preprocessor_config.json': sized(20), 'processor_config.json': { image_processor: sized(21) } }), { width: 20, height: 20 })

  const openClip = { model_cfg: { vision_cfg: { image_size: 22 } }, preprocess_cfg: { mean: [0, 0, 0], std: null } }
  t.same(await load({ 'open_clip_config.json': openClip }), { width: 22, height: 22 })
  const timm = { architecture: 'vit_base_patch16_224', pretrained_cfg: { input_size: [3, 23, 23], crop_pct: 0.9, interpolation: 'bilinear' } }
  t.same(await load({ 'config.json': timm }), { width: 23, height: 23 })
  t.same(await load({ 'config.json': { architecture: 'vit_base_patch16_224', ...timm.pretrained_cfg } }), { width: 23, height: 23 }, 'of an older release')

  const rejects = async (files: Record<string, unknown>, name: string, message: string, field?: string) => {
    const folder = await folderOf(files)
    const file = join(folder, name)
    await t.rejects(AutoProcessor.fromPretrained(folder), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', file, field, message: message || file }, message || 'no JSON object')
  }
  await rejects({}, 'preprocessor_config.json', 'is not there')
  const badSize = { ...timm, pretrained_cfg: { input_size: [1, 23, 23] } }
  await rejects({ 'config.json': badSize }, 'config.json', 'pretrained_cfg.input_size is [1,23,23]; expected [3, height, width]', 'pretrained_cfg.input_size')
  const badMode = { ...openClip, preprocess_cfg: { resize_mode: 'longest' } }
  await rejects({ 'open_clip_config.json': badMode }, 'open_clip_config.json', `preprocess_cfg.resize_mode is "longest"; expected 'shortest' or 'squash'`, 'preprocess_cfg.resize_mode')
  await rejects({ 'processor_config.json': { processor_class: 'CLIPProcessor' } }, 'preprocessor_config.json', 'is not there')
  await rejects({ 'processor_config.json': { image_processor: [] } }, 'processor_config.json', 'image_processor is no object', 'image_processor')
  for (const text of ['', '{', '[]', 'null', '{"size": 1, "size": 2}', '\xff\xfe']) await rejects({ 'preprocessor_config.json': text }, 'preprocessor_config.json', '')
  await t.rejects(AutoProcessor.fromPretrained('/no/such/folder'), { name: 'CheckpointError' })
})

t.test('fields that are missing or absurd are named, with the file', t => {
  const file = '/models/some/preprocessor_config.json'
  const wrong: [string, Record<string, unknown>][] = [
    ['size', { ...clip, size: 0 }],
    ['size', { ...clip, size: -224 }],
    ['size', { ...clip, size: 22.4 }],
    ['size', { ...clip, size: 1e9 }],
    ['size', { ...clip, size: '224' }],
    ['size', { ...clip, size: {} }],
    ['size', { ...clip, size: { height: 224 } }],
    ['size', { ...clip, size: { width: 224, height: null } }],
    ['size', { ...clip, size: { longest_edge: 224 } }],
    ['size', { ...clip, size: { shortest_edge: 224, height: 224 } }],
    ['size', { ...clip, size: [224] }],
    ['size', { ...clip, size: [224, 224, 3] }],
    ['crop_size', { ...clip, crop_size: [224, 224, 3] }],
    ['size', { ...clip, size: null }],
    ['crop_size', { ...clip, crop_size: 0 }],
    ['crop_size', { ...clip, crop_size: { shortest_edge: 224 } }],
    ['crop_size', { ...clip, crop_size: null }],
    ['crop_size', { image_processor_type: 'ViTImageProcessor', do_center_crop: true }],
    ['resample', { ...clip, resample: 6 }],
    ['resample', { ...clip, resample: 'bicubic' }],
    ['resample', { ...clip, resample: null }],
    ['do_resize', { ...clip, do_resize: 'yes' }],
    ['do_normalize', { ...clip, do_normalize: 1 }],
    ['rescale_factor', { ...clip, rescale_factor: 0 }],
    ['rescale_factor', { ...clip, rescale_factor: '1/255' }],
    ['rescale_factor', { ...clip, rescale_factor: null }],
    ['image_mean', { ...clip, image_mean: [0.5, 0.5] }],
    ['image_mean', { ...clip, image_mean: [0.5, 0.5, 0.5, 0.5] }],
    ['image_mean', { ...clip, image_mean: ['0.5', '0.5', '0.5'] }],
    ['image_mean', { ...clip, image_mean: null }],
    ['image_std', { ...clip, image_std: [0.5, 0, 0.5] }],
    ['image_std', { ...clip, image_std: -1 }],
    ['image_std', { ...clip, image_std: null }],
    ['crop_pct', { image_processor_type: 'ConvNextImageProcessor', size: { shortest_edge: 224 }, crop_pct: 0 }],
    ['size', { image_processor_type: 'ConvNextImageProcessor', size: { height: 224, width: 224 } }],
    ['image_processor_type', { image_processor_type: 7 }],
    ['do_resize', {}],
    ['do_resize', { image_processor_type: 'SomeoneElsesImageProcessor' }],
    ['do_normalize', { image_processor_type: 'SomeoneElsesImageProcessor', do_resize: false, do_rescale: true }],
    ['size', { image_processor_type: 'SomeoneElsesImageProcessor', do_resize: true, do_rescale: true, do_normalize: false, resample: 2 }],
  ]
  for (const [field, config] of wrong) {
    t.throws(() => readImageRules(config, file), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', file, field, message: new RegExp(`^${file}: (.*, and )?${field} `) }, JSON.stringify(config))
  }
  t.throws(() => readImageRules({ ...clip, size: 0, resample: 9 }, file), { message: /size is 0; expected .* and resample is 9; expected/ }, 'all are listed at once')
  t.end()
})

t.test("EfficientNet's defaults, which are not ImageNet's mean and deviation", t => {
  t.match(readImageRules({ image_processor_type: 'EfficientNetImageProcessor' }, 'x'), { mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] }, 'divided by the deviation twice')
  t.match(readImageRules({ image_processor_type: 'EfficientNetImageProcessor', include_top: false }, 'x'), { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] })
  t.end()
})

t.test("ConvNeXt's crop_pct has its default where it is null, too", t => {
  const convNext = { image_processor_type: 'ConvNextFeatureExtractor', size: 224 }
  t.match(readImageRules(convNext, 'x'), { resize: { kind: 'shortest', shortest: 256 }, crop: { height: 224, width: 224 } })
  t.same(readImageRules({ ...convNext, crop_pct: null }, 'x'), readImageRules(convNext, 'x'))
  t.end()
})

t.test('processors that do more are refused, not approximated', t => {
  for (const [field, config] of [
    ['image_processor_type', { image_processor_type: 'PerceiverImageProcessor' }],
    ['max_num_patches', { ...clip, max_num_patches: 256 }],
    ['image_processor_type', { image_processor_type: 'LevitImageProcessorFast' }],
    ['do_pad', { ...clip, do_pad: true }],
    ['size_divisor', { ...clip, size_divisor: 32 }],
    ['do_flip_channel_order', { ...clip, do_flip_channel_order: true }],
    ['crop_size', { image_processor_type: 'ConvNextImageProcessor', size: 224, do_center_crop: true, crop_size: 200 }],
  ] as [string, Record<string, unknown>][]) {
    t.throws(() => readImageRules(config, 'x.json'), { name: 'UnsupportedError', code: 'ERR_UNSUPPORTED', file: 'x.json', field }, field)
  }
  t.doesNotThrow(() => readImageRules({ ...clip, do_pad: false, do_convert_rgb: true, processor_class: 'X', unheard_of: 1 }, 'x'), 'what changes nothing is let be')
  t.end()
})

t.test('a class of another name follows its fields', t => {
  const config = {
    image_processor_type: 'SomeoneElsesImageProcessor',
    do_resize: true,
    size: { shortest_edge: 40 },
    resample: 1,
    do_center_crop: true,
    crop_size: { height: 30, width: 20 },
    do_rescale: true,
    do_normalize: true,
    image_mean: 0.5,
    image_std: [0.1, 0.2, 0.3],
  }
  t.match(
    { ...makeProcessor(readImageRules(config, 'x')) },
    { size: { height: 30, width: 20 }, normalization: { rescale: 1 / 255, mean: [0.5, 0.5, 0.5], std: [0.1, 0.2, 0.3] } },
  )
  t.end()
})
