// SigLIP 2 with pictures of any aspect ratio (NaFlex; Tschannen et al., arXiv:2502.14786): patches that the processor has cut, as many as each
// picture has, with a table of positions interpolated to its rows and columns. Text as in SigLIP. Siglip2Model, each tower alone, and the classifier.

import * as v from 'valibot'
import { ArgumentError, CheckpointError, ShapeError, UnsupportedError } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import type { Value } from '../core/value.js'
import { hiddenStates, LayerNorm, Linear, MixedPositions, type Scope, type TransformerBlock } from '../nn/index.js'
import { add, l2Normalize, pool } from '../ops/index.js'
import { checkHeads, type ConfigFile, flag, integer, labelNames, labels, readConfig, threeChannels } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Examples, JointTower, PackedRows, Streams } from './joint.js'
import { chosen, Given, pickRows, shownColumns } from './joint-inputs.js'
import { projectedTexts } from './projected.js'
import { buildSiglipText, makeLayers, PoolingHead, towerFields } from './siglip.js'

const schema = v.object({
  ...towerFields,
  patch_size: v.nullish(integer(1, 1024), 16),
  num_patches: v.nullish(integer(1, 1_000_000), 256),
  num_channels: threeChannels(),
  vision_use_head: flag(true),
})
type VisionConfig = v.InferOutput<typeof schema>

class Siglip2Vision implements JointTower {
  readonly absent: Record<string, string> = {}
  readonly inputs = ['pixel_values', 'pixel_attention_mask', 'spatial_shapes']
  readonly required = ['pixel_values', 'spatial_shapes']
  readonly embedsPictures = true
  readonly streams: Streams
  readonly prefix: string
  private readonly size: number
  private readonly patches: Linear
  private readonly positions: MixedPositions
  private readonly layers: TransformerBlock[]
  private readonly norm: LayerNorm
  private readonly head?: PoolingHead

  constructor(
    scope: Scope,
    config: VisionConfig,
    grid: number,
    private readonly options: { joint: boolean; classifier?: Linear },
  ) {
    const { hidden_size: width } = config
    this.prefix = options.joint ? 'vision_' : ''
    this.size = 3 * config.patch_size ** 2
    this.patches = new Linear(scope.at('embeddings.patch_embedding'), this.size, width)
    this.positions = new MixedPositions(scope, 'embeddings.position_embedding.weight', { width, grid: { height: grid, width: grid }, alignCorners: false })
    this.layers = makeLayers(scope, config)
    this.norm = new LayerNorm(scope.at('post_layernorm'), width, config.layer_norm_eps)
    if (config.vision_use_head && scope.has('head.probe')) this.head = new PoolingHead(scope.at('head'), config)
    else this.absent[`${this.prefix}pooler_output`] = scope.nameOf('head.probe')
    this.streams = { patches: { pixels: { dtype: 'float32', shape: [this.size] }, weights: { dtype: 'float32', shape: [this.positions.size] } } }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const given = new Given(tensors)
    const pixels = given.floats('pixel_values', ['pictures', 'patches', this.size])!
    const [count, patches] = pixels.dims as [number, number]
    const shapes = given.integers('spatial_shapes', [count, 2], 0, 65536)!
    const masks = given.mask('pixel_attention_mask', [count, patches])
    return {
      count,
      lengths: { patches },
      read: index => {
        const [height, width] = shapes.of(index) as unknown as [number, number]
        const cells = height * width
        if (cells < 1 || cells > patches) {
          throw new ShapeError(`[forward] spatial_shapes of picture ${index} is ${height} x ${width}; expected 1 to ${patches} patches, as pixel_values has`, { field: 'spatial_shapes', index })
        }
        const picked = masks ? chosen(masks.of(index), patches) : { columns: Int32Array.from({ length: cells }, (_, i) => i), unseen: undefined }
        const { columns } = picked
        if (columns.length === 0) throw new ArgumentError(`[forward] pixel_attention_mask of picture ${index} marks no patch; expected one at least`, { field: 'pixel_attention_mask', index })
        // Patches beyond the picture's have the first one's position, as in the reference.
        const rows = columns.map(column => (column < cells ? column : 0))
        return [
          {
            patches: {
              count: columns.length,
              columns: shownColumns(picked),
              values: { pixels: pickRows(pixels.of(index), columns, this.size), weights: pickRows(this.positions.weights({ height, width }), rows, this.positions.size) },
            },
          },
        ]
      },
    }
  }

  trace(rows: PackedRows): Traced {
    const { prefix, options } = this
    const { cuSeqlens } = rows.sequences('patches')
    const embedded = this.patches.forward(rows.value('patches', 'pixels'), { residual: this.positions.forward(rows.value('patches', 'weights')), dtype: 'float32' })
    const states = hiddenStates(this.layers, embedded, { cuSeqlens })
    const last = this.norm.forward(states.at(-1)!, { dtype: 'float32' })
    const mean = pool(last, { mode: 'mean', cuSeqlens, dtype: 'float32' })
    const pooled = this.head?.forward(last, { cuSeqlens })
    const outputs: Record<string, Value> = {
      [`${prefix}last_hidden_state`]: last,
      ...(pooled && { [`${prefix}pooler_output`]: pooled }),
      ...(options.classifier && { logits: options.classifier.forward(mean, { dtype: 'float32' }) }),
      ...(options.joint && { image_embeds: l2Normalize(pooled!, { dtype: 'float32' }), image_embeds_unnormalized: pooled! }),
    }
    return { outputs, hiddenStates: states, embedding: pooled ?? mean }
  }
}

function buildVision(file: ConfigFile, scope: Scope, section: string | undefined, options: { joint: boolean; classifier?: Linear }): Siglip2Vision {
  const config = readConfig(schema, file, section)
  const path = (field: string) => [section, field].filter(Boolean).join('.')
  checkHeads(file.file, path('num_attention_heads'), config.num_attention_heads, config.hidden_size)
  const grid = Math.sqrt(config.num_patches)
  if (!Number.isInteger(grid)) throw new CheckpointError(`${file.file}: ${path('num_patches')} is ${config.num_patches}; expected the square of an integer`, { file: file.file, field: path('num_patches') })
  return new Siglip2Vision(scope, config, grid, options)
}

/** @param architecture the reference's class */
export function buildSiglip2(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const both = file.json['model_type'] === 'siglip2'
  const vision = both ? 'vision_config' : undefined
  const visionScope = scope.firstWith('embeddings.patch_embedding.weight', ['vision_model', ''])
  const textScope = scope.firstWith('embeddings.token_embedding.weight', ['text_model', ''])
  switch (architecture) {
    case 'Siglip2VisionModel':
      return { joint: buildVision(file, visionScope, vision, { joint: false }) }
    case 'Siglip2TextModel':
      return { texts: buildSiglipText(file, textScope, both ? 'text_config' : undefined) }
    case 'Siglip2ForImageClassification': {
      const names = labelNames(readConfig(v.object(labels), file))
      const { hidden_size: inputs } = readConfig(schema, file, vision)
      return { joint: buildVision(file, visionScope, vision, { joint: false, classifier: new Linear(scope.at('classifier'), inputs, names.length) }), labels: names }
    }
    case 'Siglip2Model': {
      if (!visionScope.has('head.probe')) {
        const missing = visionScope.nameOf('head.probe')
        throw new CheckpointError(`${file.file}: Siglip2Model needs the tensor ${missing}, which is missing`, { file: file.file, field: 'vision_use_head', missing: [missing] })
      }
      return {
        joint: buildVision(file, visionScope, vision, { joint: true }),
        texts: projectedTexts(buildSiglipText(file, textScope, 'text_config'), { readsFirst: false }),
        logitScale: scope.parameter('logit_scale', [1]),
        logitBias: scope.parameter('logit_bias', [1]),
      }
    }
    default:
      throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of SigLIP 2 there are Siglip2Model, its towers alone and Siglip2ForImageClassification`, {
        file: file.file,
        field: 'architectures',
      })
  }
}
