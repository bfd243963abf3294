// The families of `npm run bench:families`: config.json of a usual checkpoint (fields that are the class's defaults left out), what one call
// gets, and the arithmetic of an item.

import { Tensor } from '../../dist/index.js'

/** GFLOP of a transformer on `tokens` tokens: the products of each layer and attention. */
const transformer = ({ layers = 12, width = 768, hidden = 4 * width, tokens, matrices = 2 }) =>
  1e-9 * layers * (2 * tokens * (4 * width ** 2 + matrices * width * hidden) + 4 * tokens ** 2 * width)
/** GFLOP of an image transformer. */
const vision = ({ size = 224, patch, width = 768, extra = 1, ...rest }) => {
  const patches = Math.floor(size / patch) ** 2
  return transformer({ width, tokens: patches + extra, ...rest }) + 2e-9 * patches * width * 3 * patch ** 2
}

const IMAGES = 16
const images = (size = 224, count = IMAGES) => () => ({
  items: count,
  inputs: { pixel_values: new Tensor('uint8', new Uint8Array(count * size * size * 3).map((_, i) => (i * 31) % 251), [count, size, size, 3]) },
})
/** Texts of 32 tokens; the last one ends them, for models that look for it. */
const TEXTS = 32
const TOKENS = 32
const ids = (count = TEXTS, length = TOKENS, vocabulary = 30_000) =>
  new Tensor('int32', Int32Array.from({ length: count * length }, (_, i) => ((i + 1) % length ? 5 + ((i * 37) % (vocabulary - 10)) : vocabulary - 1)), [count, length])
const texts = vocabulary => () => ({ items: TEXTS, inputs: { input_ids: ids(TEXTS, TOKENS, vocabulary) } })
const sentences = `texts of ${TOKENS} tokens, ${TEXTS} at once`
const pictures = (size = 224) => `images of ${size} x ${size}, ${IMAGES} at once`

const floats = (...dims) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b)).fill(0.25), dims)
/** Texts of 16 tokens and what they are read with. */
const joint = (inputs, items = TEXTS) => ({ items, inputs: { input_ids: ids(items, 16), ...inputs } })

/** Towers of the base size, as CLIP's and SigLIP's configs spell it. */
const base = { hidden_size: 768, intermediate_size: 3072, num_hidden_layers: 12, num_attention_heads: 12 }
const bert = { ...base, vocab_size: 30_000, max_position_embeddings: 512, type_vocab_size: 2 }

export const families = [
  {
    ...{ name: 'CLIP', size: 'openai/clip-vit-base-patch32', what: pictures(), outputs: ['image_embeds'], batch: images() },
    config: { model_type: 'clip', architectures: ['CLIPModel'], projection_dim: 512, vision_config: { ...base, patch_size: 32 }, text_config: { hidden_size: 512, intermediate_size: 2048, num_attention_heads: 8, num_hidden_layers: 12, eos_token_id: 49_407 } },
    gflop: vision({ patch: 32 }),
  },
  {
    ...{ name: 'CLIP, texts', size: 'openai/clip-vit-base-patch32', what: sentences, outputs: ['text_embeds'], batch: texts(49_408) },
    config: { model_type: 'clip', architectures: ['CLIPModel'], projection_dim: 512, vision_config: { ...base, patch_size: 32 }, text_config: { hidden_size: 512, intermediate_size: 2048, num_attention_heads: 8, num_hidden_layers: 12, eos_token_id: 49_407 } },
    gflop: transformer({ width: 512, tokens: TOKENS }),
  },
  {
    ...{ name: 'SigLIP', size: 'google/siglip-base-patch16-224', what: pictures(), outputs: ['image_embeds'], batch: images() },
    config: { model_type: 'siglip', architectures: ['SiglipModel'], vision_config: base, text_config: base },
    gflop: vision({ patch: 16, extra: 0 }),
  },
  {
    ...{ name: 'ViT', size: 'google/vit-base-patch16-224', what: pictures(), outputs: ['pooler_output'], batch: images() },
    config: { model_type: 'vit', architectures: ['ViTModel'], ...base, image_size: 224, patch_size: 16 },
    gflop: vision({ patch: 16 }),
  },
  {
    ...{ name: 'DINOv2', size: 'facebook/dinov2-base', what: pictures(), outputs: ['pooler_output'], batch: images() },
    config: { model_type: 'dinov2', architectures: ['Dinov2Model'], ...base, patch_size: 14 },
    gflop: vision({ patch: 14 }),
  },
  {
    ...{ name: 'BERT', size: 'google-bert/bert-base-uncased', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'bert', architectures: ['BertModel'], ...bert },
    gflop: transformer({ tokens: TOKENS }),
  },
  {
    ...{ name: 'DistilBERT', size: 'distilbert/distilbert-base-uncased', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'distilbert', architectures: ['DistilBertModel'], dim: 768, hidden_dim: 3072, n_layers: 6, n_heads: 12, vocab_size: 30_000, max_position_embeddings: 512 },
    gflop: transformer({ layers: 6, tokens: TOKENS }),
  },
  {
    ...{ name: 'MPNet', size: 'microsoft/mpnet-base', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'mpnet', architectures: ['MPNetModel'], ...bert, max_position_embeddings: 514 },
    gflop: transformer({ tokens: TOKENS }),
  },
  {
    ...{ name: 'XLM-RoBERTa, 30,000 of its words', size: 'FacebookAI/xlm-roberta-base', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'xlm-roberta', architectures: ['XLMRobertaModel'], ...bert, max_position_embeddings: 514, type_vocab_size: 1 },
    gflop: transformer({ tokens: TOKENS }),
  },
  {
    ...{ name: 'ModernBERT, 30,000 of its words', size: 'answerdotai/ModernBERT-base', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'modernbert', architectures: ['ModernBertModel'], ...base, intermediate_size: 1152, num_hidden_layers: 22, vocab_size: 30_000, pad_token_id: 0, max_position_embeddings: 8192, local_attention: 128, global_attn_every_n_layers: 3 },
    gflop: transformer({ layers: 22, hidden: 1152, matrices: 3, tokens: TOKENS }),
  },
  {
    ...{ name: 'Qwen3, 7 of its 28 layers, 30,000 of its words', size: 'Qwen/Qwen3-Embedding-0.6B', what: sentences, outputs: ['last_hidden_state'], batch: texts() },
    config: { model_type: 'qwen3', architectures: ['Qwen3Model'], hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 7, num_attention_heads: 16, num_key_value_heads: 8, head_dim: 128, vocab_size: 30_000, rms_norm_eps: 1e-6, rope_theta: 1e6, hidden_act: 'silu' },
    gflop: 1e-9 * 7 * TOKENS * (2 * 1024 * (2 * 2048 + 2 * 1024 + 3 * 3072) + 4 * TOKENS * 2048),
  },
  {
    ...{ name: 'DINOv3', size: 'facebook/dinov3-vits16-pretrain-lvd1689m', what: pictures(), outputs: ['pooler_output'], batch: images() },
    config: { model_type: 'dinov3_vit', architectures: ['DINOv3ViTModel'], hidden_size: 384, intermediate_size: 1536, num_hidden_layers: 12, num_attention_heads: 6, num_register_tokens: 4 },
    gflop: vision({ patch: 16, width: 384, extra: 5 }),
  },
  {
    ...{ name: 'ResNet', size: 'microsoft/resnet-50', what: pictures(), outputs: ['pooler_output'], batch: images() },
    config: { model_type: 'resnet', architectures: ['ResNetModel'], embedding_size: 64, hidden_sizes: [256, 512, 1024, 2048], depths: [3, 4, 6, 3], layer_type: 'bottleneck' },
    gflop: 8.18, // 4.09 multiply-adds, by torchvision's table of its resnet50
  },
  {
    ...{ name: 'ALIGN', size: 'kakaobrain/align-base', what: 'images of 289 x 289, 4 at once', outputs: ['image_embeds'], batch: images(289, 4) },
    config: { model_type: 'align', architectures: ['AlignModel'], projection_dim: 640, vision_config: {}, text_config: bert },
  },
  {
    ...{ name: 'VisualBERT', size: 'uclanlp/visualbert-vqa-coco-pre', what: 'texts of 16 tokens with 36 regions, 32 at once', outputs: ['pooler_output'], batch: () => joint({ visual_embeds: floats(TEXTS, 36, 2048) }) },
    config: { model_type: 'visual_bert', architectures: ['VisualBertModel'], ...bert, visual_embedding_dim: 2048 },
    gflop: transformer({ tokens: 16 + 36 }) + 2e-9 * 36 * 2048 * 768,
  },
  {
    ...{ name: 'UNITER', size: "UNITER's uniter-base.pt", what: 'texts of 16 tokens with 36 regions, 32 at once', outputs: ['pooled'], batch: () => joint({ img_feat: floats(TEXTS, 36, 2048), img_pos_feat: floats(TEXTS, 36, 7) }) },
    config: { model_type: 'uniter', architectures: ['UniterModel'], ...bert },
    gflop: transformer({ tokens: 16 + 36 }) + 2e-9 * 36 * 2048 * 768,
  },
  {
    ...{ name: 'ViLT', size: 'dandelin/vilt-b32-mlm', what: 'texts of 16 tokens with an image of 384 x 384, 8 at once', outputs: ['pooler_output'], batch: () => joint({ pixel_values: floats(8, 3, 384, 384) }, 8) },
    config: { model_type: 'vilt', architectures: ['ViltModel'] },
    gflop: transformer({ tokens: 16 + 145 }) + 2e-9 * 144 * 768 * 3072,
  },
  {
    ...{ name: 'CLIP, convolutional', size: "OpenAI's RN50.pt", what: pictures(), outputs: ['image_embeds'], batch: images() },
    config: { model_type: 'clip', architectures: ['CLIPModel'], projection_dim: 1024, vision_config: { model_type: 'modified_resnet', layers: [3, 4, 6, 3], width: 64, heads: 32, image_size: 224, projection_dim: 1024 }, text_config: { hidden_size: 512, intermediate_size: 2048, num_attention_heads: 8, num_hidden_layers: 12, eos_token_id: 49_407 } },
  },
  {
    ...{ name: 'VL-BERT', size: "VL-BERT's vl-bert-base-e2e.model", what: 'texts of 16 tokens with 36 regions, 32 at once', outputs: ['pooled_output'], batch: () => ({ items: TEXTS, inputs: { text_input_ids: ids(TEXTS, 16), text_visual_embeddings: floats(TEXTS, 16, 768), object_vl_embeddings: floats(TEXTS, 36, 1536) } }) },
    config: { model_type: 'vl-bert', architectures: ['VisualLinguisticBert'], ...bert, type_vocab_size: 3 },
    gflop: transformer({ tokens: 16 + 36 + 1 }),
  },
  {
    ...{ name: 'LXMERT', size: 'unc-nlp/lxmert-base-uncased', what: 'texts of 16 tokens with 36 regions, 32 at once', outputs: ['pooled_output'], batch: () => joint({ visual_feats: floats(TEXTS, 36, 2048), visual_pos: floats(TEXTS, 36, 4) }) },
    config: { model_type: 'lxmert', architectures: ['LxmertModel'] },
  },
  {
    ...{ name: 'BLIP, matching', size: 'Salesforce/blip-itm-base-coco', what: 'texts of 16 tokens with an image of 384 x 384, 4 at once', outputs: ['itm_score'], batch: () => joint({ pixel_values: floats(4, 3, 384, 384) }, 4) },
    config: { model_type: 'blip', architectures: ['BlipForImageTextRetrieval'], vision_config: { num_hidden_layers: 12 }, text_config: { num_hidden_layers: 12 } },
  },
  {
    ...{ name: 'SigLIP 2, any aspect ratio', size: 'google/siglip2-base-patch16-naflex', what: 'images of 16 x 16 patches, 16 at once', outputs: ['image_embeds'], batch: () => ({ items: IMAGES, inputs: { pixel_values: floats(IMAGES, 256, 768), spatial_shapes: new Tensor('int32', new Int32Array(2 * IMAGES).fill(16), [IMAGES, 2]) } }) },
    config: { model_type: 'siglip2', architectures: ['Siglip2Model'], vision_config: {}, text_config: {} },
    gflop: vision({ patch: 16, size: 256, extra: 0 }),
  },
  {
    ...{ name: 'wav2vec 2.0', size: 'facebook/wav2vec2-base-960h', what: 'clips of 5 seconds, 4 at once', outputs: ['last_hidden_state'], batch: () => ({ items: 4, inputs: { input_values: floats(4, 80_000) } }) },
    config: { model_type: 'wav2vec2', architectures: ['Wav2Vec2Model'] },
  },
]
