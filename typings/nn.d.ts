// Generated from lib by `npm run build:typings`.

import { FloatType, Shape, WeightRole, StoredView, Derived } from './shared.js';
import { DataType, Parameter, Value } from './index.js';

/** The type of weights and of the inputs of matrix products; sums, statistics and the residual stream are float32 in either. */
type ComputeType = FloatType;
/** The type of the weights in transformer blocks. */
type ProductType = ComputeType | 'int8';
/** What is known of a checkpoint before its tensors are read. */
interface TensorNames {
    has(name: string): boolean;
    /** Of the tensor as it is stored. */
    shapeOf?(name: string): Shape | undefined;
}
interface ParameterOptions {
    /** How the device stores it; 'linear' for the weights of `linear` and `patchEmbed`. Default 'plain'. */
    role?: WeightRole;
    /** Default: the compute type for role 'linear', else float32. */
    dtype?: DataType;
    /** The parameter is a part of the stored tensor, or has its dimensions in another order. */
    view?: StoredView;
    /** The parameter is computed from these tensors, which have their full names; `name` is what messages call it. */
    derived?: Derived;
    /** A factor for each row, multiplied in while loading. */
    rowScale?: Derived;
}
/**
 * @example
 * const scope = Scope.root(new Set(['layers.0.weight']), 'float32')
 * const weight = scope.at('layers', 0).parameter('weight', [8, 8], { role: 'linear' })
 */
declare class Scope {
    private readonly names;
    private readonly collected;
    readonly computeType: ComputeType;
    readonly productType: ProductType;
    /** Dotted path of this place; '' is the root. */
    readonly path: string;
    private constructor();
    /** The root of a checkpoint. */
    static root(names: TensorNames, computeType: ComputeType, productType?: ProductType): Scope;
    /** The place below this one; parts may hold dots, '' stays here. */
    at(...parts: (string | number)[]): Scope;
    /** The checkpoint's name of `name` in this place. */
    nameOf(name: string): string;
    /** Whether the checkpoint has the tensor; for optional parts, such as poolers and heads. */
    has(name: string): boolean;
    /** The first dimension of the tensor as it is stored: for sizes that no configuration tells. */
    rowsOf(name: string): number | undefined;
    /** The first of these places where the checkpoint has `probe`, else the first: for checkpoints saved with or without a prefix. */
    firstWith(probe: string, prefixes: readonly string[]): Scope;
    /** Asks for a tensor of the checkpoint, or what is made of some. Asked twice in the same way, it is the same parameter. */
    parameter(name: string, shape: Shape, options?: ParameterOptions): Parameter;
    /** Everything that was asked for below the root, in order. */
    get parameters(): Parameter[];
}

type Activation = 'none' | 'gelu' | 'quick_gelu' | 'gelu_tanh' | 'relu' | 'silu' | 'tanh';
/** An activation by itself. */
declare function activated(x: Value, activation: Activation): Value;
interface LinearOptions {
    activation?: Activation;
    /** Added after the activation, same shape as the result. */
    residual?: Value | undefined;
    dtype?: FloatType;
}
interface LinearParameters {
    bias?: boolean | undefined;
    /**
     * Of the weight; default the compute type. Layers in transformer blocks have the scope's product type: heads and projections of pooled
     * tokens cost little and are not worth int8's error.
     */
    dtype?: ProductType | undefined;
    /** The layer is rows `begin` … of stored ones with `rows` outputs: queries, keys and values in one tensor. */
    part?: {
        begin: number;
        rows: number;
    } | undefined;
    /** The same of the bias alone. */
    biasPart?: {
        begin: number;
        rows: number;
    } | undefined;
    /** Checkpoint names below the scope; default 'weight' and 'bias'. */
    names?: {
        weight: string;
        bias: string;
    } | undefined;
    /** The weight is stored as [in, out]. */
    transposed?: boolean | undefined;
    /** Full name of a vector [out] that every output is multiplied by: LayerScale (Touvron et al., arXiv:2103.17239), folded. */
    outputScale?: string | undefined;
}
declare class Linear {
    readonly weight: Parameter;
    readonly bias?: Parameter;
    constructor(scope: Scope, inputs: number, outputs: number, options?: LinearParameters);
    /** x: [..., in] -> [..., out] */
    forward(x: Value, options?: LinearOptions): Value;
}

interface Grid {
    readonly height: number;
    readonly width: number;
}
interface GridPositionsOptions {
    width: number;
    grid: Grid;
    /** Rows of the table before those of the patches: a class token's. Default 0. */
    skip?: number;
    /** Whether shrinking averages over all it leaves out, as Pillow does. Default false. */
    antialias?: boolean;
}
declare class GridPositions {
    private readonly options;
    private readonly table;
    private readonly transposed;
    private readonly matrices;
    constructor(scope: Scope, name: string, options: GridPositionsOptions);
    /** float32 [height·width, C], row by row. */
    forward(to: Grid): Value;
    private times;
}

/** How the queries and keys of a layer are turned; see the op `rotary`. */
interface Rotation {
    /** float32 [L, R] */
    readonly table: Value;
    /** int32 [T], rows of the table; or `length`. */
    readonly positions?: Value;
    readonly length?: number;
}
/**
 * How the frequencies are changed for texts longer than a model was first trained on: all divided by a factor ('linear'), or the slower ones more
 * than the faster ones ('yarn': arXiv:2309.00071, with a factor of the cosines and sines; 'llama3': arXiv:2407.21783). `original`: positions of that training.
 */
type RotaryScaling = {
    readonly kind: 'linear';
    readonly factor: number;
} | {
    readonly kind: 'yarn';
    readonly factor: number;
    readonly original: number;
    readonly attention: number;
    readonly fast: number;
    readonly slow: number;
    readonly truncate: boolean;
} | {
    readonly kind: 'llama3';
    readonly factor: number;
    readonly original: number;
    readonly low: number;
    readonly high: number;
};
/**
 * The table of positions 0 to rows − 1, computed when the model is loaded.
 * @param size rotated features of a head
 */
declare function rotaryTable(scope: Scope, { rows, size, theta, scaling }: {
    rows: number;
    size: number;
    theta: number;
    scaling?: RotaryScaling | undefined;
}): Parameter;
/**
 * The table of a grid of patches, row by row, as DINOv3 has it: patch centres from −1 to 1 along either side; a quarter of a head's features
 * turns by 2π times the row's, a quarter by the column's. Prefix tokens before the patches are not turned.
 */
declare function gridRotation({ height, width }: Grid, { size, theta, prefix }: {
    size: number;
    theta: number;
    prefix: number;
}): Rotation;

/** What is added to the scores before the softmax. */
interface ScoreBias {
    /** float32 [2L − 1, heads], by distance; see the op. */
    readonly relativeBias?: Value | undefined;
    /** float32 [Tq, Tk] for each head, of a single sequence of fixed length; computed without the fused op. */
    readonly scoreBias?: readonly Value[] | undefined;
}
/** Where sequences begin and end among the rows of x: cumulative lengths, or one length for all. */
interface Sequences {
    /** int32 [S + 1] */
    readonly cuSeqlens?: Value;
    readonly length?: number;
    /** Rows that may be attended to, where these are not all: a padded first token that is read itself but is no key of the others. */
    readonly keys?: {
        readonly rows: Value;
        readonly cuSeqlens: Value;
    } | undefined;
    /** Cumulative lengths of the queries, where those of one sequence see different keys: as many as `keys` has. */
    readonly queries?: Value | undefined;
}
/** What a layer's attention depends on beside its rows. */
interface AttentionExtra extends ScoreBias {
    /** Queries and keys are turned by it. */
    readonly rotation?: Rotation | undefined;
}
interface AttentionOptions {
    width: number;
    heads: number;
    /** Features of a head. Default width / heads. */
    headSize?: number;
    /** Heads of keys and values, each for heads / kvHeads neighbours. Default: as many. */
    kvHeads?: number;
    /**
     * Checkpoint names below the scope. `fused`: queries, keys and values are one layer, in this order. `queryNorm`, `keyNorm`: norms of each head,
     * with `eps`.
     */
    names: ({
        query: string;
        key: string;
        value: string;
    } | {
        fused: string;
        fusedNames?: {
            weight: string;
            bias: string;
        };
    }) & {
        out: string;
        queryNorm?: string;
        keyNorm?: string;
    };
    eps?: number;
    /** Of `queryNorm` and `keyNorm`. Default 'rms'. */
    headNorm?: 'rms' | 'layer';
    /** Whether the query, key and value projections have biases. Default true. */
    qkvBias?: boolean | {
        query: boolean;
        key: boolean;
        value: boolean;
    };
    /** Whether the output projection has a bias. Default true. */
    outBias?: boolean;
    /** Full name of the LayerScale of its output. */
    outputScale?: string | undefined;
    causal?: boolean;
    /** Tokens further apart do not see each other. */
    window?: number | undefined;
}
declare class Attention {
    private readonly options;
    readonly query: Linear;
    readonly key: Linear;
    readonly value: Linear;
    readonly out: Linear;
    /** Of queries, keys and values. */
    readonly dtype: ComputeType;
    private readonly headSize;
    private readonly kvHeads;
    private readonly queryNorm?;
    private readonly keyNorm?;
    constructor(scope: Scope, options: AttentionOptions);
    /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
    forward(x: Value, sequences: Sequences, { residual, relativeBias, scoreBias, rotation }?: {
        residual?: Value;
    } & AttentionExtra): Value;
    /** softmax(q·kᵀ·scale + bias)·v, head by head. */
    private mixApart;
}

interface AttentionPoolOptions {
    width: number;
    /** Of the tokens. Default: as wide. */
    contextWidth?: number;
    heads: number;
    /** Learned queries. Default 1. */
    queries?: number;
    /** Of so many that are stored, the first ones. Default: all. */
    storedQueries?: number;
    /** Checkpoint names below the scope; `attention` is a torch.nn.MultiheadAttention. Without names there are no norms. */
    names: {
        queries: string;
        attention: string;
        queryNorm?: string;
        keyNorm?: string;
    };
}
declare class AttentionPool {
    private readonly options;
    private readonly queries;
    private readonly query;
    private readonly key;
    private readonly value;
    private readonly out;
    private readonly queryNorm?;
    private readonly keyNorm?;
    constructor(scope: Scope, options: AttentionPoolOptions);
    /** tokens: [T, contextWidth] -> float32 [S·queries, C] */
    forward(tokens: Value, { cuSeqlens, length }: Pick<Sequences, 'cuSeqlens' | 'length'>): Value;
}

interface CrossAttentionOptions {
    width: number;
    /** Of the rows that are looked at. Default: as wide. */
    contextWidth?: number;
    heads: number;
    /** Checkpoint names below the scope. */
    names: {
        query: string;
        key: string;
        value: string;
        out: string;
    };
}
declare class CrossAttention {
    private readonly options;
    private readonly query;
    private readonly key;
    private readonly value;
    private readonly out;
    private readonly dtype;
    constructor(scope: Scope, options: CrossAttentionOptions);
    /** x: [Tq, C]; context: [Tk, D]; residual: float32 [Tq, C], added to the result -> float32 [Tq, C] */
    forward(x: Value, sequences: Sequences, context: Value, contextSequences: Sequences, residual?: Value): Value;
}

/** How uint8 pixels become numbers: (pixel · rescale − mean) / std, per channel. */
interface PixelScale {
    readonly rescale: number;
    readonly mean: readonly number[];
    readonly std: readonly number[];
}
interface PatchEmbedOptions {
    width: number;
    /** Side of a patch in pixels. */
    patch: number;
    /** Rows of the position table: patches, and one more for the class token. */
    tokens: number;
    /** Checkpoint names below the scope; a part without a name does not exist. */
    names: {
        weight: string;
        bias?: string;
        classToken?: string;
        positions?: string;
    };
    /** The stored table has `of` rows, of which these begin at `begin`: those before are for tokens that are put there otherwise. */
    positionRows?: {
        begin: number;
        of: number;
    };
}
declare class PatchEmbed {
    readonly weight: Parameter;
    readonly bias: Parameter | undefined;
    readonly classToken: Parameter | undefined;
    readonly positions: Parameter | undefined;
    readonly patch: number;
    constructor(scope: Scope, { width, patch, tokens, names, positionRows }: PatchEmbedOptions);
    /**
     * pixels: uint8 [B, Y, X, 3] or float32 [B, 3, Y, X] -> float32 [B·tokens, C]
     * @param positions float32 [tokens, C], in the table's place
     */
    forward(pixels: Value, scale: PixelScale, positions?: Value | undefined): Value;
}

/** Pictures as rows [B·height·width, C]. */
interface FeatureMap {
    readonly rows: Value;
    readonly height: number;
    readonly width: number;
}
interface ConvolutionOptions {
    inputs: number;
    outputs: number;
    /** Down and across; one number for both. */
    kernel: number | readonly [number, number];
    stride?: number | readonly [number, number];
    /** Before and behind, for both sides; or [top, left, bottom, right]. Default 0. */
    padding?: number | readonly [number, number, number, number];
    /** Checkpoint name of the layer below the scope. */
    name: string;
    bias?: boolean;
    /** The batch norm behind it: its name below the scope. */
    norm?: {
        readonly name: string;
        readonly eps: number;
    } | undefined;
    /** Dimensions of the stored kernel. Default 2; 1 for signals. */
    rank?: 1 | 2;
}
interface ConvolveOptions {
    activation?: Activation;
    residual?: Value | undefined;
    dtype?: FloatType;
}
declare class Convolution {
    private readonly weight;
    private readonly bias;
    private readonly sliding;
    /** A kernel of one pixel at each is a linear layer. */
    private readonly pointwise;
    constructor(scope: Scope, options: ConvolutionOptions);
    forward(x: FeatureMap, options?: ConvolveOptions): FeatureMap;
}
/** Each channel by itself. */
declare class DepthwiseConvolution {
    private readonly weight;
    private readonly bias;
    private readonly sliding;
    constructor(scope: Scope, options: Omit<ConvolutionOptions, 'inputs' | 'rank'>);
    forward(x: FeatureMap, options?: Omit<ConvolveOptions, 'residual'>): FeatureMap;
}
/** Pictures as rows of normalised pixels, [B·height·width, 3]: patches of one pixel, projected by the identity, which is exact. */
declare class PixelRows {
    private readonly identity;
    constructor(scope: Scope);
    /** pixels: uint8 [B, Y, X, 3] or float32 [B, 3, Y, X] */
    forward(pixels: Value, { rescale, mean, std }: PixelScale, dtype: FloatType): FeatureMap;
}

declare class Embedding {
    readonly rows: number;
    readonly weight: Parameter;
    constructor(scope: Scope, rows: number, width: number, name?: string);
    /** indices: int32 [T] -> float32 [T, C] */
    forward(indices: Value): Value;
}

interface MixedPositionsOptions {
    width: number;
    grid: Grid;
    /** Rows of the table before those of the patches: a class token's. Default 0. */
    skip?: number;
    /** align_corners: the corners of both grids are the same points. Else edges are, and shrinking averages over all it leaves out (antialias). */
    alignCorners: boolean;
}
declare class MixedPositions {
    private readonly options;
    private readonly transposed;
    constructor(scope: Scope, name: string, options: MixedPositionsOptions);
    /** Rows of the table, so many weights each patch has. */
    get size(): number;
    /** weights: float32 [T, size] -> float32 [T, C] */
    forward(weights: Value): Value;
    /** The weights [to.height·to.width, size] of a picture's patches, row by row. */
    weights(to: Grid): Float32Array;
}

interface MlpOptions {
    width: number;
    hidden: number;
    activation: Activation;
    /** Checkpoint names below the scope. `fused`: the gate and what it multiplies are one layer, in this order. */
    names: {
        in: string;
        out: string;
    } | {
        gate: string;
        up: string;
        out: string;
    } | {
        fused: string;
        out: string;
    };
    /** Whether the layers have biases. Default true. */
    mlpBias?: boolean | undefined;
    /** Full name of the LayerScale of its output. */
    outputScale?: string | undefined;
}
declare class Mlp {
    readonly in: Linear;
    /** What the activated `in` is multiplied by. */
    readonly up?: Linear;
    readonly out: Linear;
    private readonly activation;
    private readonly dtype;
    constructor(scope: Scope, { width, hidden, activation, names, mlpBias: bias, outputScale }: MlpOptions);
    /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
    forward(x: Value, residual?: Value): Value;
}

interface Norm {
    /** x: [..., C] -> [..., C] */
    forward(x: Value, options?: {
        dtype?: FloatType;
    }): Value;
}
declare class LayerNorm implements Norm {
    readonly eps: number;
    readonly weight: Parameter;
    readonly bias?: Parameter;
    constructor(scope: Scope, width: number, eps: number, { bias }?: {
        bias?: boolean;
    });
    /** x: [..., C] -> [..., C] */
    forward(x: Value, options?: {
        dtype?: FloatType;
    }): Value;
}
declare class RmsNorm implements Norm {
    readonly eps: number;
    readonly weight: Parameter;
    constructor(scope: Scope, width: number, eps: number);
    forward(x: Value, options?: {
        dtype?: FloatType;
    }): Value;
}

/** n values [S, C] as one, [S, n·C]: each times the part of the identity that moves it to its place, which is exact. */
declare function sideBySide(values: readonly Value[]): Value;

interface BlockOptions extends Omit<AttentionOptions, 'names' | 'eps' | 'outputScale'> {
    order: 'pre' | 'post';
    hidden: number;
    activation: Activation;
    eps: number;
    /** Default 'layer'. */
    norm?: 'layer' | 'layer without bias' | 'rms';
    mlpBias?: boolean;
    /** Names of the LayerScale of the attention and of the MLP. */
    layerScale?: readonly [string, string];
    /** Checkpoint names below the block's scope; norm1 belongs to the attention, norm2 to the MLP. Without a name there is no norm1. */
    names: {
        attention: AttentionOptions['names'];
        norm1?: string;
        mlp: MlpOptions['names'];
        norm2: string;
    };
}
declare class TransformerBlock {
    private readonly options;
    readonly attention: Attention;
    readonly norm1?: Norm;
    readonly mlp: Mlp;
    readonly norm2: Norm;
    constructor(scope: Scope, options: BlockOptions);
    /** x: float32 [T, C] -> float32 [T, C] */
    forward(x: Value, sequences: Sequences, extra?: AttentionExtra): Value;
}
/** Runs blocks one after the other; gives the stream before the first, and after each. `extra` may differ from block to block. */
declare function hiddenStates(blocks: readonly TransformerBlock[], x: Value, sequences: Sequences, extra?: AttentionExtra | ((block: number) => AttentionExtra)): Value[];

export { Attention, AttentionPool, Convolution, CrossAttention, DepthwiseConvolution, Embedding, GridPositions, LayerNorm, Linear, MixedPositions, Mlp, PatchEmbed, PixelRows, RmsNorm, Scope, TransformerBlock, activated, gridRotation, hiddenStates, rotaryTable, sideBySide };
export type { Activation, AttentionExtra, AttentionOptions, AttentionPoolOptions, BlockOptions, ComputeType, ConvolutionOptions, CrossAttentionOptions, FeatureMap, Grid, GridPositionsOptions, LinearOptions, LinearParameters, MixedPositionsOptions, MlpOptions, Norm, ParameterOptions, PatchEmbedOptions, PixelScale, RotaryScaling, Rotation, ScoreBias, Sequences, TensorNames };
