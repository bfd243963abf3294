// Building blocks of encoders: small classes that ask a Scope for their parameters and turn symbolic values into symbolic values.

export { Attention, type AttentionExtra, type AttentionOptions, type ScoreBias, type Sequences } from './attention.js'
export { AttentionPool, type AttentionPoolOptions } from './attention-pool.js'
<<<<<<< HEAD
export { CrossAttention, type CrossAttentionOptions } from './cross-attention.js'
=======
export { Convolution, type ConvolutionOptions, DepthwiseConvolution, type FeatureMap, PixelRows } from './convolution.js'
>>>>>>> main
export { Embedding } from './embedding.js'
export { activated, type Activation, Linear, type LinearOptions, type LinearParameters } from './linear.js'
export { MixedPositions, type MixedPositionsOptions } from './mixed-positions.js'
export { Mlp, type MlpOptions } from './mlp.js'
export { LayerNorm, type Norm, RmsNorm } from './norm.js'
export { PatchEmbed, type PatchEmbedOptions, type PixelScale } from './patch-embed.js'
export { type Grid, GridPositions, type GridPositionsOptions } from './positions.js'
export { gridRotation, type Rotation, rotaryTable } from './rotary.js'
export { type ComputeType, type ParameterOptions, Scope, type TensorNames } from './scope.js'
export { sideBySide } from './side-by-side.js'
export { type BlockOptions, hiddenStates, TransformerBlock } from './transformer.js'
