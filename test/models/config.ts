// config.json: what is missing, absurd or unknown gives an error that names the file and the field; both spellings and the defaults of
// the reference are read.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CheckpointError, UnsupportedError } from '../../lib/core/errors.js'
import { type ConfigFile, labelNames } from '../../lib/models/config.js'
import { distanceBucket } from '../../lib/models/mpnet.js'
import { buildArchitecture } from '../../lib/models/registry.js'
import { positionsFromPadding } from '../../lib/models/xlm-roberta.js'
import { Scope } from '../../lib/nn/index.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { fixture, temporary, variant } from '../support/models.js'

type Json = Record<string, any>

function read(name: string): Json {
  return JSON.parse(readFileSync(join(fixture(name), 'config.json'), 'utf8')) as Json
}

function build(json: Json, names: Iterable<string> = []) {
  const scope = Scope.root(new Set(names), 'float32')
  const file: ConfigFile = { json, file: 'folder/config.json' }
  return { architecture: buildArchitecture(file, scope), scope }
}

t.test('fields that are missing or absurd', t => {
  const cases: [string, (config: Json) => void, string, RegExp][] = [
    ['bert-v5', c => delete c['hidden_size'], 'hidden_size', /folder\/config\.json: hidden_size is missing/],
    ['bert-v5', c => delete c['num_attention_heads'], 'num_attention_heads', /num_attention_heads is missing/],
    ['bert-v5', c => (c['hidden_size'] = 0), 'hidden_size', /hidden_size is 0; expected an integer from 1 to 65536/],
    ['bert-v5', c => (c['hidden_size'] = 1e12), 'hidden_size', /hidden_size is 1000000000000/],
    ['bert-v5', c => (c['num_hidden_layers'] = -1), 'num_hidden_layers', /num_hidden_layers is -1/],
    ['bert-v5', c => (c['num_hidden_layers'] = 2.5), 'num_hidden_layers', /num_hidden_layers is 2\.5/],
    ['bert-v5', c => (c['vocab_size'] = '120'), 'vocab_size', /vocab_size is "120"; expected an integer/],
    ['bert-v5', c => (c['num_attention_heads'] = 5), 'num_attention_heads', /num_attention_heads is 5, which does not divide the width 32/],
    ['bert-v5', c => (c['hidden_act'] = 'gelux'), 'hidden_act', /hidden_act is "gelux"; expected one of gelu,/],
    ['bert-v5', c => (c['layer_norm_eps'] = 0), 'layer_norm_eps', /layer_norm_eps is 0; expected a number above 0/],
    ['bert-v5', c => (c['max_position_embeddings'] = null), 'max_position_embeddings', /max_position_embeddings is null; expected an integer/],
    ['xlm-roberta', c => (c['max_position_embeddings'] = 2), 'max_position_embeddings', /expected more than pad_token_id 1/],
    ['mpnet', c => (c['relative_attention_num_buckets'] = 31), 'relative_attention_num_buckets', /relative_attention_num_buckets is 31; expected an integer from 32/],
    ['distilbert', c => delete c['dim'], 'dim', /dim is missing/],
    ['vit-v5', c => delete c['patch_size'], 'patch_size', /patch_size is missing/],
    ['vit-v5', c => (c['patch_size'] = 25), 'patch_size', /patch_size is 25, larger than the image_size 24 x 24/],
    ['vit-v5', c => (c['image_size'] = [24]), 'image_size', /image_size is \[24\]; expected an integer from 1 to 16384, or two/],
    ['vit-v5', c => (c['num_channels'] = 1), 'num_channels', /num_channels is 1; expected 3 channels/],
    ['resnet-bottleneck-first', c => (c['depths'] = [1, 2]), 'depths', /hidden_sizes has 3 stages, depths has 2; expected as many/],
    ['resnet-bottleneck-first', c => (c['hidden_sizes'] = [20, 3, 44]), 'hidden_sizes', /hidden_sizes has 3; expected at least 4 in bottlenecks/],
    ['resnet-bottleneck-first', c => (c['layer_type'] = 'deep'), 'layer_type', /layer_type is "deep"; expected 'basic' or 'bottleneck'/],
    ['align-odd', c => (c['vision_config']['strides'] = [1, 2]), 'vision_config.strides', /vision_config\.strides has 2 stages, in_channels has 3; expected as many/],
    ['align-odd', c => (c['vision_config']['in_channels'] = [32, 16, 64]), 'vision_config.in_channels', /has 64 for stage 2; expected the 24 of what is before it/],
    ['align-odd', c => (c['projection_dim'] = 7), 'projection_dim', /projection_dim is 7; expected the picture tower's 24 features/],
    ['wav2vec2-layer-holes', c => (c['conv_stride'] = [5]), 'conv_stride', /conv_stride has 1 convolutions, conv_dim has 3; expected as many/],
    ['wav2vec2-layer-holes', c => (c['num_conv_pos_embedding_groups'] = 5), 'num_conv_pos_embedding_groups', /is 5, which does not divide the width 32/],
    ['wav2vec2-layer-holes', c => (c['feat_extract_norm'] = 'batch'), 'feat_extract_norm', /feat_extract_norm is "batch"; expected 'group' or 'layer'/],
    ['clip-v5', c => delete c['vision_config'], 'vision_config', /vision_config is missing; expected an object/],
    ['clip-v5', c => (c['text_config'] = 3), 'text_config', /text_config is 3; expected an object/],
    ['clip-v5', c => delete c['text_config']['hidden_size'], 'text_config.hidden_size', /text_config\.hidden_size is missing/],
    ['clip-v5', c => delete c['vision_config']['num_attention_heads'], 'vision_config.num_attention_heads', /vision_config\.num_attention_heads is missing/],
    ['clip-v5', c => (c['vision_config']['patch_size'] = -8), 'vision_config.patch_size', /vision_config\.patch_size is -8/],
    ['clip-v5', c => (c['text_config']['vocab_size'] = 1e30), 'text_config.vocab_size', /text_config\.vocab_size is 1e\+30/],
    ['clip-v5', c => (c['projection_dim'] = false), 'projection_dim', /projection_dim is false/],
    ['modernbert-classifier-holes', c => (c['layer_types'] = ['full_attention']), 'layer_types', /layer_types has 1 names for 3 layers/],
    ['modernbert-classifier-holes', c => (c['layer_types'][1] = 'linear_attention'), 'layer_types.1', /layer_types\.1 is "linear_attention"; expected 'full_attention' or 'sliding_attention'/],
    ['qwen3-llama3', c => delete c['rope_parameters']['low_freq_factor'], 'rope_parameters.low_freq_factor', /low_freq_factor is missing, which the rope_type 'llama3' needs/],
    ['qwen3-linear', c => (c['rope_parameters']['factor'] = 0), 'rope_parameters.factor', /factor is 0; expected a number above 0/],
    ['modernbert-classifier-holes', c => (c['rope_parameters']['full_attention']['rope_theta'] = 0), 'rope_parameters.full_attention.rope_theta', /rope_theta is 0; expected a number above 0, at most 1e12/],
    ['modernbert-classifier-holes', c => (c['local_attention'] = -2), 'local_attention', /local_attention is -2/],
    ['modernbert-classifier-holes', c => (c['num_attention_heads'] = 32), 'num_attention_heads', /num_attention_heads gives heads of 1 features; expected an even number/],
    ['modernbert-classifier-holes', c => (c['classifier_pooling'] = 'max'), 'classifier_pooling', /classifier_pooling is "max"; expected 'cls' or 'mean'/],
    ['qwen3-sliding-right', c => (c['num_key_value_heads'] = 3), 'num_key_value_heads', /num_key_value_heads is 3, which does not divide num_attention_heads 4/],
    ['qwen3-sliding-right', c => (c['head_dim'] = 7), 'head_dim', /head_dim gives heads of 7 features/],
    ['qwen3-sliding-right', c => (c['sliding_window'] = 0), 'sliding_window', /sliding_window is 0/],
    ['wav2vec2-voices', c => (c['tdnn_dilation'][1] = 2.5), 'tdnn_dilation.1', /tdnn_dilation\.1 is 2\.5; expected an integer from 1 to 1024/],
    [
      'wav2vec2-voices',
      c => Object.assign(c, { tdnn_dim: [10, 900, 800], tdnn_kernel: [3, 1024, 1024], tdnn_dilation: [1, 1, 1024] }),
      'tdnn_dilation',
      /tdnn_dilation is 1024 for convolution 2, whose tdnn_kernel of 1024 makes 754\d+ weights with the gaps; expected at most 268435456/,
    ],
    ['dinov3-oblong', c => (c['num_attention_heads'] = 16), 'num_attention_heads', /num_attention_heads gives heads of 2 features; expected a multiple of 4/],
    ['dinov3-oblong', c => (c['num_register_tokens'] = -1), 'num_register_tokens', /num_register_tokens is -1/],
    ['bert-v5', c => (c['model_type'] = 7), 'model_type', /model_type is 7/],
    ['bert-v5', c => { delete c['model_type']; delete c['architectures'] }, 'model_type', /model_type is missing/],
  ]
  for (const [name, change, field, message] of cases) {
    const config = read(name)
    change(config)
    try {
      build(config)
      t.fail(`${name}: ${message} was not thrown`)
    } catch (error) {
      t.ok(error instanceof CheckpointError, String(error))
      t.match((error as Error).message, message)
      t.match(error, { file: 'folder/config.json', field })
    }
  }
  t.end()
})

// What each architecture reads. A number that is huge but within bounds is no error of its own: then the weights do not fit, and the error lists them.
const SIZES = ['hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size']
const TEXT = [...SIZES, 'vocab_size', 'max_position_embeddings']
const READ: Record<string, { sizes: string[]; settings?: string[] }> = {
  'clip-v5': {
    sizes: ['vision_config', 'text_config'],
    settings: ['projection_dim', ...['image_size', 'patch_size', ...SIZES].map(f => `vision_config.${f}`), ...TEXT.map(f => `text_config.${f}`), 'text_config.hidden_act', 'vision_config.layer_norm_eps'],
  },
  'clip-text': { sizes: [], settings: [...TEXT, 'hidden_act', 'layer_norm_eps', 'eos_token_id'] },
  'vit-v5': { sizes: [...SIZES, 'image_size', 'patch_size'], settings: ['num_channels', 'hidden_act', 'layer_norm_eps', 'qkv_bias', 'pooler_output_size', 'pooler_act'] },
  'bert-v5': { sizes: TEXT, settings: ['type_vocab_size', 'hidden_act', 'layer_norm_eps', 'position_embedding_type', 'is_decoder'] },
  'minilm-st': { sizes: TEXT, settings: ['type_vocab_size', 'hidden_act'] },
  distilbert: { sizes: ['dim', 'n_layers', 'n_heads', 'hidden_dim', 'vocab_size', 'max_position_embeddings'], settings: ['activation'] },
  mpnet: { sizes: TEXT, settings: ['relative_attention_num_buckets', 'hidden_act', 'layer_norm_eps'] },
  'modernbert-classifier-holes': { sizes: ['hidden_size', 'intermediate_size', 'num_attention_heads', 'vocab_size'], settings: ['num_hidden_layers', 'max_position_embeddings', 'hidden_activation', 'norm_eps', 'local_attention', 'layer_types', 'rope_parameters'] },
  'qwen3-sliding-right': { sizes: TEXT.filter(name => name !== 'max_position_embeddings'), settings: ['num_key_value_heads', 'head_dim', 'hidden_act', 'rms_norm_eps', 'rope_parameters', 'sliding_window'] },
  'dinov3-oblong': { sizes: ['hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads', 'patch_size'], settings: ['hidden_act', 'layer_norm_eps', 'rope_theta', 'num_register_tokens', 'key_bias'] },
  'resnet-bottleneck-first': { sizes: [], settings: ['num_channels', 'embedding_size', 'hidden_sizes', 'depths', 'layer_type', 'hidden_act', 'downsample_in_first_stage', 'downsample_in_bottleneck'] },
  'align-odd': {
    sizes: ['vision_config', 'text_config'],
    settings: [
      'projection_dim',
      ...['width_coefficient', 'depth_coefficient', 'depth_divisor', 'kernel_sizes', 'in_channels', 'out_channels', 'strides', 'num_block_repeats', 'expand_ratios'].map(f => `vision_config.${f}`),
      ...['squeeze_expansion_ratio', 'hidden_act', 'pooling_type', 'batch_norm_eps', 'image_size'].map(f => `vision_config.${f}`),
    ],
  },
  'wav2vec2-layer-holes': {
    sizes: [],
    settings: [
      ...[...SIZES, 'hidden_act', 'layer_norm_eps', 'feat_extract_norm', 'feat_extract_activation', 'conv_dim', 'conv_stride', 'conv_kernel', 'conv_bias'],
      ...['num_conv_pos_embeddings', 'num_conv_pos_embedding_groups', 'do_stable_layer_norm', 'vocab_size', 'add_adapter', 'adapter_attn_dim'],
    ],
  },
  'wav2vec2-voices': { sizes: [], settings: ['tdnn_dim', 'tdnn_kernel', 'tdnn_dilation', 'xvector_output_dim'] },
  'wav2vec2-reduced': { sizes: [], settings: ['output_hidden_size', 'num_adapter_layers', 'adapter_kernel_size', 'adapter_stride'] },
  'xlm-roberta': { sizes: TEXT, settings: ['type_vocab_size', 'pad_token_id', 'hidden_act'] },
}
const ABSURD = ['-1', '1e15', '1e400', '"x"', '[]', '[3,[]]']

t.test('every field of every architecture, absent and absurd', async t => {
  for (const [name, { sizes, settings = [] }] of Object.entries(READ)) {
    const folder = variant(t, name, () => {})
    const file = join(folder, 'config.json')
    const whole = readFileSync(file, 'utf8')
    const refused = async (path: string, value: string | undefined) => {
      const config = JSON.parse(whole) as Json
      const keys = path.split('.')
      const at = keys.length === 2 ? (config[keys[0]!] as Json) : config
      if (value === undefined) delete at[keys.at(-1)!]
      else at[keys.at(-1)!] = '@'
      writeFileSync(file, JSON.stringify(config).replace('"@"', value!))
      const what = `${name}: ${path} ${value ?? 'absent'}`
      const error = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' }).then(() => undefined, error => error)
      if (!(error instanceof CheckpointError || error instanceof UnsupportedError)) return t.fail(`${what}: ${error?.stack ?? 'no error'}`)
      if (error.missing) return t.match(error.message, /config|does not have the tensors/, what) // a size that the weights do not have
      t.equal(error.file, file, what)
      t.ok(error.message.includes(keys.at(-1)!), `${what}: ${error.message}`)
    }
    for (const path of sizes) await refused(path, undefined)
    for (const path of [...sizes, ...settings]) for (const value of ABSURD) await refused(path, value)
    writeFileSync(file, whole)
    await using model = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    t.ok(model, 'and the process goes on')
  }
})

t.test('architectures that are not there', t => {
  const cases: [string, (config: Json) => void, RegExp][] = [
    ['bert-v5', c => (c['model_type'] = 'gpt2'), /model_type 'gpt2' \(BertModel\) is not supported; supported are clip, .*bert/],
    ['bert-v5', c => (c['model_type'] = 'toString'), /model_type 'toString'/],
    ['bert-v5', c => { delete c['model_type']; c['architectures'] = ['BertaModel'] }, /architecture 'BertaModel' is not supported/],
    ['bert-v5', c => (c['position_embedding_type'] = 'relative_key'), /position_embedding_type 'relative_key' is not supported/],
    ['bert-v5', c => (c['is_decoder'] = true), /is_decoder is true/],
    ['wav2vec2-layer-holes', c => { c['add_adapter'] = true; c['architectures'] = ['Wav2Vec2ForSequenceClassification'] }, /\(add_adapter\) in Wav2Vec2ForSequenceClassification/],
    ['wav2vec2-layer-holes', c => (c['use_weighted_layer_sum'] = true), /use_weighted_layer_sum.*do_stable_layer_norm/],
    ['wav2vec2-layer-holes', c => (c['architectures'] = ['Wav2Vec2ForSpeech']), /Wav2Vec2ForSpeech; expected one of Wav2Vec2Model/],
    ['align-odd', c => (c['architectures'] = ['AlignForSomething']), /AlignForSomething is not supported; of ALIGN there are AlignModel/],
    ['qwen3-sliding-right', c => (c['rope_parameters'] = { rope_type: 'longrope', factor: 4, rope_theta: 1e6 }), /rope_parameters has the rope_type 'longrope'; 'default', 'linear', 'dynamic', 'yarn' and 'llama3' are supported/],
    ['qwen3-sliding-right', c => (c['rope_scaling'] = { rope_type: 'linear', factor: 2, partial_rotary_factor: 0.5 }), /rope_scaling\.partial_rotary_factor is 0\.5; only 1 is supported/],
    ['modernbert-classifier-holes', c => (c['rope_scaling'] = { type: 'linear', factor: 2 }), /rope_scaling has the rope_type 'linear'/],
    ['vit-v5', c => (c['patch_size'] = [8, 4]), /patch_size is 8 x 4; only square patches/],
    ['clip-v5', c => (c['architectures'] = ['CLIPForSegmentation']), /CLIPForSegmentation is not supported; of CLIP there are CLIPModel, its towers alone and CLIPForImageClassification/],
    ['clip-v5', c => { c['model_type'] = 'chinese_clip'; c['architectures'] = ['ChineseCLIPForSomething'] }, /ChineseCLIPForSomething is not supported; of Chinese-CLIP there are/],
    ['blip-itm-odd', c => (c['architectures'] = ['BlipForQuestionAnswering']), /BlipForQuestionAnswering is not supported; of BLIP there are BlipModel, its towers alone and/],
  ]
  for (const [name, change, message] of cases) {
    const config = read(name)
    change(config)
    t.throws(() => build(config), { name: 'UnsupportedError', message })
  }
  t.end()
})

t.test('what decides the architecture', t => {
  const withoutType = read('bert-v5')
  delete withoutType['model_type']
  t.equal(build(withoutType).architecture.texts?.vocabulary, 120)
  const masked = { ...read('bert-v5'), architectures: ['BertForMaskedLM'] }
  t.ok(build(masked, ['bert.embeddings.word_embeddings.weight']).scope.parameters.every(({ name }) => name.startsWith('bert.')), 'a head is no hindrance')
  const vision = { ...read('clip-v5')['vision_config'], architectures: ['CLIPVisionModelWithProjection'], projection_dim: 20 }
  const alone = build(vision)
  t.ok(alone.architecture.images && !alone.architecture.texts && !alone.architecture.logitScale)
  t.ok(alone.scope.parameters.some(({ name, shape }) => name === 'visual_projection.weight' && shape[0] === 20))
  const text = build({ ...read('clip-v5')['text_config'], architectures: ['CLIPTextModel'] })
  t.notOk(text.scope.parameters.some(({ name }) => name.includes('projection')))
  t.end()
})

t.test('CLIP configurations that leave out defaults', t => {
  const sparse = { model_type: 'clip', projection_dim: 512, text_config: { model_type: 'clip_text_model' }, vision_config: { model_type: 'clip_vision_model', patch_size: 16 } }
  const { architecture, scope } = build(sparse)
  t.strictSame(architecture.images!.imageSize, { height: 224, width: 224 })
  t.strictSame(architecture.texts!.positions, 77)
  const shapeOf = (name: string) => scope.parameters.find(parameter => parameter.name === name)?.shape
  t.strictSame(shapeOf('vision_model.embeddings.position_embedding.weight'), [197, 768])
  t.strictSame(shapeOf('text_model.encoder.layers.11.mlp.fc1.weight'), [2048, 512])
  t.throws(() => build(sparse, ['text_model.encoder.layers.12.layer_norm1.weight']), { message: /num_hidden_layers of text_model is missing/ })
  const some = (transformers_version: string) => build({ ...sparse, transformers_version, text_config: { hidden_size: 96, intermediate_size: 64 } })
  t.throws(() => some('5.23.0'), { name: 'CheckpointError', field: 'text_config.num_attention_heads' })
  t.strictSame(some('4.46.3').scope.parameters.find(({ name }) => name === 'text_model.encoder.layers.0.mlp.fc1.weight')?.shape, [64, 96], 'heads as usual')
  const older = { ...sparse, text_config_dict: { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 } }
  t.strictSame(build(older).scope.parameters.find(({ name }) => name === 'text_model.final_layer_norm.weight')?.shape, [768])
  const partly = build({ ...older, text_config: { max_position_embeddings: 20, hidden_size: 96 }, text_config_dict: { hidden_size: 96 } })
  t.equal(partly.architecture.texts!.positions, 77, 'what it leaves out is as usual, whatever the section says')
  t.strictSame(partly.scope.parameters.find(({ name }) => name === 'text_model.encoder.layers.11.mlp.fc1.weight')?.shape, [2048, 96])
  t.end()
})

t.test('text sections of pairs that leave out defaults', t => {
  const pairs: [string, string, Json, string, number[]][] = [
    ['chinese_clip', 'text_model', { vocab_size: 21128 }, 'text_model.embeddings.word_embeddings.weight', [21128, 768]],
    ['align', 'text_model', {}, 'text_model.encoder.layer.11.intermediate.dense.weight', [3072, 768]],
    ['blip', 'text_model', {}, 'text_model.embeddings.word_embeddings.weight', [30524, 768]],
  ]
  for (const [type, tower, fields, name, shape] of pairs) {
    const sparse = { model_type: type, text_config: { model_type: `${type}_text_model`, ...fields }, vision_config: { model_type: `${type}_vision_model` } }
    t.strictSame(build(sparse).scope.parameters.find(parameter => parameter.name === name)?.shape, shape, type)
    t.throws(() => build(sparse, [`${tower}.encoder.layer.12.output.dense.weight`]), { name: 'CheckpointError', field: 'text_config.num_hidden_layers' }, type)
    const half = { ...sparse, text_config: { ...sparse.text_config, hidden_size: 96 } }
    t.throws(() => build(half), { name: 'CheckpointError', message: /text_config\.num_attention_heads is missing/ }, type)
    if (type === 'chinese_clip') {
      const older = build({ ...half, text_config_dict: { hidden_size: 120, type_vocab_size: 3 } }).scope
      t.strictSame(older.parameters.find(({ name }) => name === `${tower}.encoder.layer.0.intermediate.dense.weight`)?.shape, [3072, 120], 'text_config_dict counts')
    }
    // transformers 4 left out each field that has its default.
    const { scope } = build({ ...half, transformers_version: '4.46.3' })
    t.strictSame(scope.parameters.find(({ name }) => name === `${tower}.encoder.layer.0.intermediate.dense.weight`)?.shape, [3072, 96], type)
  }
  t.end()
})

t.test('names of classes, as they may be', t => {
  t.same(labelNames({ id2label: { 0: 'cat', 1: 'dog' } }), ['cat', 'dog'])
  t.same(labelNames({ id2label: { 0: 0, 1: 1 } }), ['0', '1'], 'numbers')
  t.same(labelNames({ id2label: { 1: 'cat', 2: 'dog' } }), ['LABEL_0', 'cat'], 'a place without a name')
  t.same(labelNames({ id2label: null }), ['LABEL_0', 'LABEL_1'])
  const numbers = read('vit-v5')
  numbers['id2label'] = { 1: 1, 5: 0 }
  t.ok(build(numbers).architecture.images, 'an encoder that has no classes takes any')
  t.end()
})

t.test('end of text', t => {
  const endOf = (eos: number | undefined, ids: number[]) => {
    const config = read('clip-v5')
    config['text_config']['eos_token_id'] = eos
    return build(config).architecture.texts!.endOf!(Int32Array.from(ids))
  }
  t.equal(endOf(98, [97, 5, 98, 98]), 2, 'the first')
  t.equal(endOf(98, [97, 5, 6]), 0, 'without one the first token, as in the reference')
  t.equal(endOf(2, [50, 98, 2, 98, 0]), 1, 'old configurations: the largest id')
  t.equal(endOf(undefined, [50, 5, 98, 0]), 2)
  const saved = read('clip-v5')
  saved['text_config'] = { ...(saved['text_config'] as object), vocab_size: 49410, eos_token_id: undefined }
  t.equal(build(saved).architecture.texts!.endOf!(Int32Array.of(49406, 49408, 49407, 49409)), 2, 'the usual one where it was left out, whatever was added to the vocabulary')
  t.end()
})

t.test('positions and distances', t => {
  t.strictSame([...positionsFromPadding(Int32Array.of(1, 1, 5, 6, 1, 7), 1)], [1, 1, 2, 3, 1, 4])
  t.strictSame([...positionsFromPadding(Int32Array.of(5, 0, 6), 0)], [1, 0, 2])
  // 32 buckets; keys ahead are 16 further on. 16, 32 and 64 lie on borders, where rounding would put them into the bucket before.
  const behind: [number, number][] = [[0, 0], [1, 1], [7, 7], [8, 8], [11, 8], [12, 9], [15, 9], [16, 10], [22, 10], [23, 11], [31, 11], [32, 12], [45, 12], [46, 13], [63, 13], [64, 14], [90, 14], [91, 15], [127, 15], [128, 15], [500, 15]]
  for (const [far, bucket] of behind) {
    t.equal(distanceBucket(-far, 32), bucket, `${far} behind`)
    if (far > 0) t.equal(distanceBucket(far, 32), bucket + 16, `${far} ahead`)
  }
  t.end()
})

t.test('folders', async t => {
  await t.rejects(AutoModel.fromPretrained(temporary(t)), { code: 'ERR_CHECKPOINT', message: /config\.json is not there/ })
  const broken = temporary(t)
  writeFileSync(join(broken, 'config.json'), '{"model_type": "bert",')
  await t.rejects(AutoModel.fromPretrained(broken), { code: 'ERR_CHECKPOINT', message: /config\.json is no JSON/, file: join(broken, 'config.json') })
  const unknown = variant(t, 'bert-v5', c => (c['model_type'] = 'llama'))
  await t.rejects(AutoModel.fromPretrained(unknown), UnsupportedError)
  const deeper = variant(t, 'bert-v5', c => { c['num_hidden_layers'] = 3; c['intermediate_size'] = 40 })
  const error = await AutoModel.fromPretrained(deeper).catch(error => error)
  t.ok(error instanceof CheckpointError)
  t.ok(error.missing.includes('encoder.layer.2.attention.self.query.weight'), 'all that is missing')
  t.match(error.mismatched.join(), /encoder\.layer\.0\.intermediate\.dense\.weight is \[48,32\]; expected \[40,32\]/, 'and all of another shape')
})
