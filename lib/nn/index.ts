// Building blocks of encoders: small classes that ask a Scope for their parameters and turn symbolic values into symbolic values.

export { Attention, type AttentionOptions, type ScoreBias, type Sequences } from './attention.js'
export { Embedding } from './embedding.js'
export { type Activation, Linear, type LinearOptions } from './linear.js'
export { Mlp, type MlpOptions } from './mlp.js'
export { LayerNorm } from './norm.js'
export { PatchEmbed, type PatchEmbedOptions, type PixelScale } from './patch-embed.js'
export { type ComputeType, type ParameterOptions, Scope, type TensorNames } from './scope.js'
export { sideBySide } from './side-by-side.js'
export { type BlockOptions, hiddenStates, TransformerBlock } from './transformer.js'
