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
]
