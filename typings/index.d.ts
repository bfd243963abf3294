// Generated from lib by `npm run build:typings`.
/// <reference types="node" />

import { FloatType, Parameter, TensorLike, ValueType, Tensor, Value } from './shared.js';
export { DataType, TensorData } from './shared.js';

// The bridge's contract, written by hand: what lib/core/native.ts may call and native/cpp/bridge must export.
// Errors thrown or rejected by the addon carry `code`, one of the ERR_* codes of lib/core/errors.ts.

type WireType = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'int64' | 'bool'

/** One contiguous or strided piece of a file, read by ranges on a native thread. */
interface FileSource {
  file: string
  offset: number // bytes from the start of the file
  dtype: WireType
  shape: readonly number[]
  strides?: readonly number[] // elements; absent: row-major
}

interface NativeWeights {
  readonly bytes: number
  dispose(): void // memory is freed when the last run that uses it ends
}

interface ImagePlan {
  width: number // of the source
  height: number
  channels: 1 | 2 | 3 | 4 // of the source: grey, grey+alpha, RGB, RGBA; alpha is dropped
  cmyk?: boolean // the 4 channels are CMYK inks
  orientation: number // EXIF 1..8, applied first
  resizeWidth: number // after orientation; equal to the source's size means no resize
  resizeHeight: number
  filter: 'nearest' | 'bilinear' | 'bicubic' | 'lanczos' | 'box' | 'hamming'
  cropLeft: number // of the resized picture, may be negative: outside is 0
  cropTop: number
  cropWidth: number
  cropHeight: number
}

interface DeviceInfo {
    /** 'cpu', 'cuda:0', …; 'cuda' where there is no GPU to number. */
    id: string;
    kind: string;
    name: string;
    /** Bytes; each 0 where it is not known. */
    memory: {
        total: number;
        free: number;
    };
    /** CPU: instruction sets this build has kernels for and the processor has, weakest first. */
    isa?: string[];
    computeCapability?: string;
    /** CPU: cores this process may use. */
    threads?: number;
    available: boolean;
    /** Why it is not available. */
    reason?: string;
}
/**
 * The devices of this machine, also those that cannot be used, with the reason.
 *
 * @throws DeviceError if the native addon cannot be loaded on this platform
 */
declare function listDevices(): Promise<DeviceInfo[]>;
interface DeviceOptions {
    /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N', 'gpu'; for tests 'cuda-sim'. */
    device?: string | undefined;
    /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16', on the CPU 'int8', on CUDA 'f16'; also 'fp32' and 'q8'. */
    dtype?: string | undefined;
    /** Cores to use at most. */
    threads?: number | undefined;
    /** Caps the CPU's instruction set; for tests and measurements. */
    isa?: string | undefined;
}
/** The types that models can compute in. */
type ComputeDType = 'f32' | 'bf16' | 'f16' | 'int8';
/** An opened device. It has a submit thread of its own and shares the process's thread pool; dispose of it to give back its memory. */
declare class Device {
    readonly id: string;
    readonly dtype: ComputeDType;
    /** The instruction set in use. */
    readonly isa: string;
    readonly threads: number;
    /** Whether the device has bf16 arithmetic. */
    readonly bf16: boolean;
    private readonly reference;
    private constructor();
    /**
     * Opens a device.
     *
     * @example
     * await using device = await Device.open({ device: 'cpu', dtype: 'f32' })
     * @throws DeviceError if it is absent, UnsupportedError for a dtype it cannot compute in, ArgumentError for a name that is none
     */
    static open(options?: DeviceOptions): Promise<Device>;
    /** The type of weights and of what passes between ops, as tensors spell it. With int8 products, what is quickest beside them. */
    get computeType(): FloatType;
    /** The type of the weights of a transformer block's products: the compute type, or int8. */
    get productType(): FloatType | 'int8';
    /** Whether the device has a kernel for the op. */
    hasOp(op: string): boolean;
    /**
     * Puts parameters on the device, converted to their storage type and packed if they are the weight of a product. Files are read by
     * ranges on a native thread.
     *
     * @param entries each parameter once, with a piece of a file or a host tensor of as many elements
     * @param options.signal stops loading between tensors; the promise rejects with its reason at once, and what was loaded is freed soon after
     * @param options.onProgress may throw: the load ends, what was loaded is freed, and the promise rejects with what it threw
     * @throws ShapeError, ArgumentError, CheckpointError (naming the file), OutOfMemoryError
     */
    loadWeights(entries: readonly {
        parameter: Parameter;
        source: FileSource | TensorLike;
        rowScale?: Float32Array;
    }[], options?: {
        signal?: AbortSignal | undefined;
        onProgress?: ((loadedBytes: number, totalBytes: number) => void) | undefined;
    }): Promise<Weights>;
    /** Bytes in use on this device by this object. */
    memoryUsage(): {
        weights: number;
        arena: number;
        total: number;
    };
    /** Frees plans, arena and weights when the last run that uses them ends; waits for queued runs to settle. */
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}
/** Parameters on a device. */
declare class Weights {
    readonly native: NativeWeights;
    /** Where each parameter stands. */
    readonly index: ReadonlyMap<Parameter, number>;
    /** Not a callback, whose scope would keep what the weights were made of. */
    private readonly plans;
    private static count;
    /** Device memory they take. */
    get bytes(): number;
    /** Frees the memory when the last run that uses it ends. Programs made with these weights cannot run afterwards. */
    dispose(): void;
    [Symbol.dispose](): void;
}
/** Bytes in use on each device, over all that are open in this thread: `{ cpu: { weights, arena, total } }`. */
declare function memoryUsage(): Record<string, {
    weights: number;
    arena: number;
    total: number;
}>;

interface CompileOptions {
    /** Each run checks that no op writes beyond its buffers, and shows what is read before it is written as NaN. Slow; for tests. */
    guard?: boolean;
}
type TracedFunction = (inputs: Record<string, Value>) => Record<string, Value>;
/**
 * Compiles `fn` for inputs of the given types; where a type has an extent, its first dimension is a capacity.
 *
 * @example
 * const program = compile(({ x }) => ({ y: softmax(x) }), { x: { shape: [2, 3], dtype: 'float32' } }, device)
 * const { y } = await program.run({ x: new Tensor('float32', new Float32Array(6), [2, 3]) })
 * @throws ShapeError, DTypeError, ArgumentError from the ops that `fn` calls; TraceError if it asks a value for data
 */
declare function compile(fn: TracedFunction, specs: Readonly<Record<string, ValueType>>, device: Device, weights?: Weights, options?: CompileOptions): Program;
interface RunOptions {
    /** How many there are of each extent; what the inputs' shapes tell need not be said. */
    counts?: Readonly<Record<string, number>> | undefined;
    /** The promise rejects with its reason; queued work does not start, running work stops between ops. */
    signal?: AbortSignal | undefined;
}
/** A compiled function. Runs may overlap: the device takes them one after the other. */
declare class Program {
    private readonly device;
    readonly inputs: Readonly<Record<string, ValueType>>;
    private readonly lowered;
    readonly outputs: readonly string[];
    private readonly capacities;
    private entry;
    /** The outputs' types at capacity. */
    get outputTypes(): Readonly<Record<string, ValueType>>;
    /** What its rows are counted by. */
    get extents(): readonly string[];
    /** Bytes of the arena this plan needs; plans of a device share one. */
    get arenaBytes(): number;
    /**
     * Runs the program: one native call. Inputs are copied before the promise is returned.
     *
     * @param inputs by name, of the compiled dtypes, and shapes with the actual counts in place of capacities
     * @throws ArgumentError, DTypeError, ShapeError for inputs that do not fit; DisposedError; what the ops say of their data
     */
    run(inputs: Readonly<Record<string, TensorLike>>, options?: RunOptions): Promise<Record<string, Tensor>>;
    /** Gives the plan back; runs that are queued or running still end. */
    dispose(): void;
    [Symbol.dispose](): void;
    private alive;
    private checkInputs;
    /** The count of each extent, told by the caller or by the first input that has it; then every input's shape must agree. */
    private checkCounts;
}

interface ErrorFields {
    /** Name of the op that refused its inputs. */
    op?: string;
    /** Shapes of the inputs involved, in order. */
    shapes?: readonly (readonly number[])[];
    /** File or URL the error is about. */
    file?: string;
    /** Configuration or option field the error is about. */
    field?: string;
    /** Index of the failed input in the caller's list. */
    index?: number;
    /** Tensor names, for checkpoint errors. */
    missing?: readonly string[];
    mismatched?: readonly string[];
    unexpected?: readonly string[];
    cause?: unknown;
}
/** Base class of all errors chiasma throws on purpose. */
declare class ChiasmaError extends Error {
    readonly code: string;
    readonly op?: string;
    readonly shapes?: readonly (readonly number[])[];
    readonly file?: string;
    readonly field?: string;
    readonly index?: number;
    readonly missing?: readonly string[];
    readonly mismatched?: readonly string[];
    readonly unexpected?: readonly string[];
    constructor(code: string, message: string, fields?: ErrorFields);
}
type FamilyMember = new (message: string, fields?: ErrorFields & {
    code?: string;
}) => ChiasmaError;
declare const ShapeError_base: FamilyMember;
/** Shapes that do not fit together. */
declare class ShapeError extends ShapeError_base {
}
declare const DTypeError_base: FamilyMember;
/** A dtype an op does not take. */
declare class DTypeError extends DTypeError_base {
}
declare const ArgumentError_base: FamilyMember;
/** An argument or input outside what is allowed. */
declare class ArgumentError extends ArgumentError_base {
}
declare const UnsupportedError_base: FamilyMember;
/** Something this build, device or architecture cannot do. */
declare class UnsupportedError extends UnsupportedError_base {
}
declare const TraceError_base: FamilyMember;
/** Data was asked of a value that is only being traced. */
declare class TraceError extends TraceError_base {
}
declare const CheckpointError_base: FamilyMember;
/** A checkpoint, its configuration or a Hub download is broken, incomplete or not reachable. */
declare class CheckpointError extends CheckpointError_base {
}
declare const ImageError_base: FamilyMember;
/** An image that cannot be read or decoded. */
declare class ImageError extends ImageError_base {
}
declare const AudioError_base: FamilyMember;
/** A sound that cannot be read or decoded. */
declare class AudioError extends AudioError_base {
}
declare const DeviceError_base: FamilyMember;
/** A device is absent, lost or cannot be loaded. */
declare class DeviceError extends DeviceError_base {
}
declare const OutOfMemoryError_base: FamilyMember;
/** Memory ran out on the host or the device. */
declare class OutOfMemoryError extends OutOfMemoryError_base {
}
declare const DisposedError_base: FamilyMember;
/** The object was disposed of before or during the call. */
declare class DisposedError extends DisposedError_base {
}

interface SourceLimits {
    /** Fetch http(s) URLs; default false. */
    allowRemote?: boolean;
    /** Bytes that a file, a data: URL or a download may have; default 256 MiB. */
    maxBytes?: number;
    /** Milliseconds a download may take in all; default 30,000. */
    timeout?: number;
    signal?: AbortSignal;
}

/** Seconds in which anything was in each stage; `total` is the whole call. */
interface EmbedTimings {
    readonly total: number;
    /** Reading files or downloading, and headers. */
    readonly read: number;
    /** Image files to pixels. */
    readonly decode: number;
    /** Orientation, resize and crop. */
    readonly preprocess: number;
    readonly tokenise: number;
    /** The model. */
    readonly compute: number;
}

/** One channel of samples, usually within −1 and 1, and how many there are a second. */
interface RawAudio {
    samples: Float32Array;
    sampleRate: number;
}
/** A path, a file:, data: or (if allowed) http(s) URL of a WAV file, its bytes, or samples. */
type AudioInput = string | URL | Buffer | Uint8Array | RawAudio;
interface AudioOptions extends SourceLimits {
    /** Seconds that a sound may have: memory grows with it. Default 120. */
    maxSeconds?: number;
}

interface AudioFeatures extends Record<string, Tensor> {
    /** float32 [n, samples] */
    input_values: Tensor;
}
/** Sounds to what a model takes; `attention_mask`, int64, is there if the checkpoint asks for it. */
interface AudioProcessor {
    (clips: AudioInput | readonly AudioInput[], options?: AudioOptions): Promise<AudioFeatures>;
    readonly sampleRate: number;
}

/** Groups of files: `config` (config.json and sentence-transformers' module files), `weights`, `tokenizer`, `processor`. */
type FileGroup = 'config' | 'weights' | 'tokenizer' | 'processor';

/** What transformers.js's progress_callback gets. `progress` is in percent, `loaded` and `total` in bytes. */
type ProgressEvent = {
    status: 'initiate' | 'download' | 'done';
    name: string;
    file: string;
} | {
    status: 'progress';
    name: string;
    file: string;
    progress: number;
    loaded: number;
    total: number;
} | {
    status: 'ready';
    task: string;
    model: string;
};
interface SourceOptions {
    /** What is needed of the repository; default all. */
    files?: readonly FileGroup[];
    /** Default: HF_HUB_CACHE, else `hub` in HF_HOME. */
    cacheDir?: string;
    /** Branch, tag or commit; default 'main'. */
    revision?: string;
    /** Only what is in the cache; also by HF_HUB_OFFLINE=1. */
    localFilesOnly?: boolean;
    /** Default: HF_TOKEN, else the file of `hf auth login`. */
    token?: string;
    signal?: AbortSignal;
    onProgress?: (event: ProgressEvent) => void;
}

type Filter = ImagePlan['filter'];
/** Sizes in pixels. */
type ResizeRule = {
    readonly kind: 'fixed';
    readonly height: number;
    readonly width: number;
}
/** The shorter edge becomes `shortest`; with `longest`, less if the longer one would exceed that. */
 | {
    readonly kind: 'shortest';
    readonly shortest: number;
    readonly longest?: number;
}
/** The same, and then both sides rounded down to multiples of `divisor`: ViLT's. */
 | {
    readonly kind: 'divisible';
    readonly shortest: number;
    readonly longest: number;
    readonly divisor: number;
}
/** As large as gives at most so many patches of a side of `patch`, both sides rounded up to whole ones: SigLIP 2's. */
 | {
    readonly kind: 'patches';
    readonly patch: number;
    readonly most: number;
};
interface ImageRules {
    readonly resize?: ResizeRule;
    readonly filter: Filter;
    /** `middle`: where half a pixel is left over, it goes down, or to the even number, as torchvision has it. Default 'down'. */
    readonly crop?: {
        readonly height: number;
        readonly width: number;
        readonly middle?: 'down' | 'even';
    };
    /** Pictures of a call are padded to the largest of them, and a mask tells what is picture. */
    readonly pads?: boolean;
    /** Pictures are cut into patches, padded to `most`. */
    readonly patches?: {
        readonly patch: number;
        readonly most: number;
    };
    /** pixel * rescale, then (x - mean) / std, one of each for a channel. */
    readonly rescale: number;
    readonly mean: readonly [number, number, number];
    readonly std: readonly [number, number, number];
}

/** Pixels already decoded: uint8, interleaved, rows from the top without padding. */
interface RawImage {
    data: Uint8Array | Uint8ClampedArray;
    width: number;
    height: number;
    /** 1 grey, 3 RGB, 4 RGBA; alpha is dropped. */
    channels: 1 | 3 | 4;
}
/** A path, a file:, data: or (if allowed) http(s) URL, the bytes of an image file, or raw pixels. */
type ImageInput = string | URL | Buffer | Uint8Array | RawImage;

interface ImageOptions extends SourceLimits {
    /** Pixels (width times height) an image may have; default 100 million. */
    maxPixels?: number;
    /** Accept SVG, drawn on white in its own size; default false. */
    allowSvg?: boolean;
}

interface ProcessorOptions extends ImageOptions {
    /** 'float32' (default): scaled, [n, 3, H, W], as the reference's `pixel_values`. 'uint8': as cropped, [n, H, W, 3]. */
    output?: 'float32' | 'uint8';
}
/** What a model takes; masks and shapes are int64. */
interface ProcessorOutput {
    readonly pixel_values: Tensor;
    /** [n, H, W], 1 where there is picture: of processors that pad pictures. */
    readonly pixel_mask?: Tensor;
    /** [n, patches], 1 where there is one: of processors that cut pictures into patches. */
    readonly pixel_attention_mask?: Tensor;
    /** [n, 2], rows and columns of patches. */
    readonly spatial_shapes?: Tensor;
}
/**
 * Made by `AutoProcessor.fromPretrained`; it is called: `await processor(images)`.
 *
 * @example
 * const processor = await AutoProcessor.fromPretrained('openai/clip-vit-base-patch32')
 * const { pixel_values } = await processor(['cat.jpg', 'dog.jpg']) // float32 [2, 3, 224, 224]
 */
interface Processor {
    /**
     * @returns `pixel_values`: float32 [n, 3, H, W], or uint8 [n, H, W, 3] with `output: 'uint8'`; with what else the class makes
     * @throws ImageError, ArgumentError with `index` set to the first image that failed; ShapeError if images come out in different sizes.
     */
    (images: ImageInput | readonly ImageInput[], options?: ProcessorOptions): Promise<ProcessorOutput>;
    /** The size of every result, unless it depends on the image. */
    readonly size: {
        readonly height: number;
        readonly width: number;
    } | undefined;
    /** What happens to a pixel after the crop: (pixel * rescale - mean) / std. */
    readonly normalization: Pick<ImageRules, 'rescale' | 'mean' | 'std'>;
}

declare const AutoProcessor: {
    /**
     * The image processor of a checkpoint, with the pixels of the reference's Pillow processor; of one that takes sound, its feature extractor.
     *
     * @example
     * const extractor = await AutoProcessor.fromPretrained<AudioProcessor>('facebook/wav2vec2-base-960h')
     * @param source a folder or a Hub id
     * @throws CheckpointError: no preprocessor_config.json, or a field that is missing or absurd
     * @throws UnsupportedError for a processor that does more than resize, crop, rescale and normalise.
     */
    fromPretrained<P extends Processor | AudioProcessor = Processor>(source: string, options?: SourceOptions): Promise<P>;
};

/** The regions of a picture. */
interface Regions {
    readonly id: string;
    /** float32 [n, d] */
    readonly features: Tensor;
    /** float32 [n, 4]: left, top, right, bottom, in the unit of the picture's size. */
    readonly boxes: Tensor;
    readonly imageWidth: number;
    readonly imageHeight: number;
}
/**
 * The pictures of a bottom-up TSV file, one after the other: image_id, image_w, image_h, num_boxes, boxes, features, or LXMERT's ten fields.
 * @throws ArgumentError naming the file, the line and the field that is wrong
 */
declare function readRegionsTsv(file: string): AsyncGenerator<Regions, void, undefined>;
/**
 * The picture of an .npz file: `features` or `x` [n, d] (or [d, n]), `boxes` or `bbox` [n, 4] with `image_w` and `image_h`, or UNITER's `norm_bb`;
 * `num_boxes` or `num_bbox` where the arrays are padded.
 * @throws CheckpointError for a broken file, an array that is missing or of the wrong size
 */
declare function readRegionsNpz(file: string): Promise<Regions>;
/**
 * The inputs of a model for pictures' regions, padded to the most: `visual_embeds` and its mask of VisualBERT; `visual_feats`, `visual_pos` and the
 * mask of LXMERT; of UNITER `img_feat`, `img_pos_feat`, and with the texts' attention mask `attn_masks` and `gather_index`.
 *
 * @example
 * const inputs = { ...tokenizer(texts, { padding: true }), ...regionInputs('lxmert', regions) }
 * @param modelType the configuration's model_type
 * @param attentionMask int64 or int32 [n, tokens], for UNITER
 * @throws ArgumentError, ShapeError for regions that do not belong together, with `index`; UnsupportedError for another model
 */
declare function regionInputs(modelType: string, regions: readonly Regions[], attentionMask?: Tensor): Record<string, Tensor>;

interface TokenizeOptions {
    /** true or 'longest' (default): to the longest text; 'max_length': to maxLength; false: all texts must come out equally long. */
    padding?: boolean | 'longest' | 'max_length';
    /** Cut texts to maxLength; default false. Of a pair, the longer one is cut first. */
    truncation?: boolean;
    /** Tokens of a text with special tokens; default the tokenizer's `maxLength`. */
    maxLength?: number;
    /** A second text for each, put after the first one. */
    textPair?: string | readonly string[];
    /** Default true. */
    addSpecialTokens?: boolean;
}
interface Encoded {
    /** int64 [n, length]. */
    input_ids: Tensor;
    /** int64 [n, length], 0 where it is padding; 1 throughout for models that are trained to see it (SigLIP). */
    attention_mask: Tensor;
    /** int64 [n, length], where the model takes it: 1 in second texts. */
    token_type_ids?: Tensor;
}
/**
 * Made by `AutoTokenizer.fromPretrained`; it is called, and tokenises synchronously.
 *
 * @example
 * const tokenizer = await AutoTokenizer.fromPretrained('sentence-transformers/all-MiniLM-L6-v2')
 * const { input_ids, attention_mask } = tokenizer(['a cat', 'two dogs and a cat'], { truncation: true })
 */
interface Tokenizer {
    /** @throws ArgumentError for what is no text (with `index`), an absurd option, and texts of unequal lengths without padding. */
    (texts: string | readonly string[], options?: TokenizeOptions): Encoded;
    /** Tokens a text may have with its special tokens; Infinity if the checkpoint does not say. */
    readonly maxLength: number;
    /** Id of the padding token; 0 if the checkpoint has none. */
    readonly padId: number;
    /** Ids of one text with special tokens, however many. */
    encode(text: string): number[];
    /** The text of ids, without special tokens. */
    decode(ids: ArrayLike<number> | ArrayLike<bigint>): string;
}
declare const AutoTokenizer: {
    /**
     * Loads a checkpoint's tokenizer: tokenizer.json, or vocab.json with merges.txt (CLIP), or vocab.txt (BERT).
     *
     * @param source a folder or a Hub id
     * @throws CheckpointError naming the file that is missing or broken
     */
    fromPretrained(source: string, options?: SourceOptions): Promise<Tokenizer>;
};

/** 'whitespace': every stretch of it is one blank, and none at the ends; 'lower': in small letters, too; 'canonicalize': without punctuation, too. */
declare const TEXT_CLEANINGS: readonly ["whitespace", "lower", "canonicalize"];
type TextCleaning = (typeof TEXT_CLEANINGS)[number];

/** What a folder of sentence-transformers or open_clip says of texts that are embedded. */
interface SentenceSettings {
    /** Tokens that they are cut to, whatever the tokenizer says. */
    readonly maxLength?: number | undefined;
    /** They are written in small letters before they are tokenized. */
    readonly lowercase: boolean;
    /** What else is done to them before. */
    readonly cleaning?: TextCleaning | undefined;
    /** Separators among the tokens are 0 (CLIPA). */
    readonly withoutSeparator?: boolean;
    /** Whether a prompt's tokens are pooled with the others. */
    readonly poolsPrompt: boolean;
}

type Config = Readonly<Record<string, unknown>>;

interface ForwardOptions {
    /** Names of the outputs wanted; nothing else is computed. Default: all that the inputs allow. */
    outputs?: readonly string[] | undefined;
    /** Adds hidden_state_0 (the embeddings) to hidden_state_N, with the sub-model's prefix. */
    outputHiddenStates?: boolean | undefined;
    /** The promise rejects with its reason. */
    signal?: AbortSignal | undefined;
}
/** What parts of a model have in common. */
interface PartOfModel {
    /**
     * Reads the part's weights now. Parts that share none, as CLIP's towers, else read them when they first run.
     * @throws CheckpointError for a file that is broken or was changed since the model was loaded, DisposedError
     */
    load(options?: {
        signal?: AbortSignal | undefined;
    }): Promise<void>;
}
/** Pictures to embeddings. */
interface ImageEncoder extends PartOfModel {
    /** Of the pictures it takes. */
    readonly size: {
        readonly height: number;
        readonly width: number;
    };
    readonly dimensions: number;
    /** pixels: uint8 [n, height, width, 3] -> float32 [n, dimensions], not normalised */
    encode(pixels: Uint8Array, count: number, options?: {
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/** Pictures that a processor has cut into patches, each as many as it has, to embeddings. */
interface PatchEncoder extends PartOfModel {
    readonly dimensions: number;
    /** pictures: what the processor makes of each -> float32 [n, dimensions], not normalised */
    encode(pictures: readonly Readonly<Record<string, Tensor>>[], options?: {
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/** The scores of texts beside one picture, by a model that looks at both together. */
interface PairScorer {
    /** What a score is: a probability, or any number, more for a better match. */
    readonly kind: 'probability' | 'logit';
    /** Tokens a text may have. */
    readonly maxLength: number;
    /**
     * picture: what the processor makes of one; sequences: ids of each text, with special tokens and without padding -> a score for each
     * @param options.padId the tokenizer's padding token
     */
    score(picture: Readonly<Record<string, Tensor>>, sequences: readonly Int32Array[], options?: {
        padId?: number | undefined;
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/** Token ids to embeddings. */
interface TextEncoder extends PartOfModel {
    readonly dimensions: number;
    /** Tokens a text may have. */
    readonly maxLength: number;
    /** Of a folder that says how texts are read. */
    readonly sentence: SentenceSettings | undefined;
    /**
     * Whether `encode` takes these ids of text `index`.
     * @throws ArgumentError for a text without tokens, with too many, or with one that the model does not know
     */
    check(ids: Int32Array, index: number): void;
    /**
     * sequences: ids of each text, with special tokens and without padding -> float32 [n, dimensions], not normalised
     * @param options.unpooled so many tokens at the front, a prompt's, are left out by poolings
     * @param options.padId the tokenizer's padding token, for towers that are given texts of one length
     */
    encode(sequences: readonly Int32Array[], options?: {
        unpooled?: number | undefined;
        padId?: number | undefined;
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/** Sound to embeddings. */
interface AudioEncoder extends PartOfModel {
    readonly dimensions: number;
    /** The fewest samples that a clip may have. */
    readonly minSamples: number;
    /** clips: samples at the checkpoint's rate, as its feature extractor makes them -> float32 [n, dimensions], not normalised */
    encode(clips: readonly Float32Array[], options?: {
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/** Pictures to scores of the classes that a checkpoint was trained on. */
interface Classifier {
    readonly labels: readonly string[];
    /** pixels: uint8 [n, height, width, 3] -> float32 [n, labels], before softmax */
    logits(pixels: Uint8Array, count: number, options?: {
        signal?: AbortSignal | undefined;
    }): Promise<Float32Array>;
}
/**
 * A model on a device.
 *
 * @example
 * const model = await AutoModel.fromPretrained('openai/clip-vit-base-patch32')
 * const { text_embeds } = await model.forward({ input_ids })
 * await model.dispose()
 */
declare class Model {
    private readonly parts;
    /** config.json as it is. */
    readonly config: Config;
    /** 'cpu', 'cuda:0', … */
    readonly device: string;
    /** What matrix products are computed in: 'f32', 'bf16', 'f16' (CUDA) or 'int8'. */
    readonly dtype: string;
    /** The folder it was loaded from: the source, or its snapshot in the Hub's cache. */
    readonly folder: string;
    /** Tensors of the checkpoint that nothing here reads. */
    readonly unusedTensors: readonly string[];
    readonly imageEncoder: ImageEncoder | undefined;
    /** In imageEncoder's place for pictures of any aspect ratio. */
    readonly patchEncoder: PatchEncoder | undefined;
    readonly textEncoder: TextEncoder | undefined;
    /** Of models that were trained to match pictures and texts. */
    readonly pairScorer: PairScorer | undefined;
    readonly audioEncoder: AudioEncoder | undefined;
    readonly classifier: Classifier | undefined;
    /** The factor that turns cosines of images and texts into logits, of models that have one. */
    readonly logitScale: number | undefined;
    /** What is added to the logits, of models whose pairs are scored one by one. */
    readonly logitBias: number | undefined;
    /** Of what is computed from parts' outputs; reads no weights. */
    private readonly jointPrograms;
    /** Of each part. */
    private readonly programs;
    private readonly images;
    private readonly texts;
    /** All there are, in the order in which outputs are listed. */
    private readonly runners;
    private readonly pairing;
    private disposed;
    /**
     * Runs the model.
     *
     * Inputs, by the reference's names: `pixel_values` uint8 [n, H, W, 3] or float32 [n, 3, H, W] (as the processor makes them);
     * `input_values` float32 [n, samples], with `attention_mask` of the same shape; `input_ids` int64 or int32 [B, L], with `attention_mask`, `token_type_ids` and `position_ids` of the same shape. One modality is
     * enough for its outputs. Outputs are float32, masks among them int64. Positions whose mask is 0 are not computed and come back as zeros, as does
     * everything of a text whose mask is 0 throughout.
     *
     * @example
     * const { last_hidden_state } = await model.forward({ input_ids, attention_mask }, { outputs: ['last_hidden_state'] })
     * @throws ArgumentError for an unknown input or output, a token id or pixel out of range, a text that is too long; ShapeError and
     *   DTypeError for tensors that do not fit; CheckpointError for an output whose tensors the checkpoint lacks; DisposedError
     */
    forward(inputs: Readonly<Record<string, TensorLike>>, options?: ForwardOptions): Promise<Record<string, Tensor>>;
    /** Frees weights and plans when the last run that uses them ends. */
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
    private checkAlive;
    private readInputs;
    /** Which part gives each output. */
    private resolve;
    private noOutput;
    /** Of scale · images · textsᵀ + bias, its transpose, and its sigmoids what is wanted. Texts are padded to a few counts, so that plans are few. */
    private logits;
    private logitsProgram;
    private loadOf;
    private makeImageEncoder;
    private makeAudioEncoder;
    private makePatchEncoder;
    private makePairScorer;
    private makeClassifier;
    private fromPixels;
    private makeTextEncoder;
}

interface LoadOptions extends Omit<SourceOptions, 'files'> {
    /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N'. */
    device?: string | undefined;
    /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16', 'int8', on CUDA 'f16'; transformers.js's spellings too. */
    dtype?: string | undefined;
    /** Cores to use at most. */
    threads?: number | undefined;
}
declare const AutoModel: {
    /**
     * Loads a model.
     *
     * @example
     * await using model = await AutoModel.fromPretrained('sentence-transformers/all-MiniLM-L6-v2', { dtype: 'f32' })
     * @param source a folder with config.json and weights, or a Hub repository id
     * @throws CheckpointError for a file that is missing or broken, naming it and the field; UnsupportedError for an architecture that is
     *   not there; DeviceError for a device that is not there
     */
    fromPretrained(source: string, options?: LoadOptions): Promise<Model>;
};

/**
 * How embeddings are returned. `int8` is round(127·x) of the normalised vector and `uint8` the same plus 128; `binary` and `ubinary` pack the signs,
 * eight dimensions a byte, the first in the highest bit, as sentence-transformers does (`binary` subtracts 128).
 */
type Precision = 'float32' | 'int8' | 'uint8' | 'binary' | 'ubinary';

/** Called while a long call runs: items done so far, and how many there are where that is known. */
interface EmbedProgress {
    readonly done: number;
    readonly total?: number;
}
interface EmbedOptions {
    /** L2-normalise each embedding; default true. */
    normalize?: boolean;
    /** Items given to the model at once, 1024 at most; default 32 images, or texts of 2048 tokens in all. It changes speed, never results. */
    batchSize?: number;
    /** Keep this many leading dimensions (Matryoshka), before normalising; default all, or what the checkpoint says (`truncate_dim`). */
    truncateDim?: number;
    signal?: AbortSignal;
    onProgress?: (progress: EmbedProgress) => void;
    /** Called at the end of the call with where its time went. */
    onTimings?: (timings: EmbedTimings) => void;
}
interface EmbedImagesOptions extends EmbedOptions, ImageOptions {
}
interface EmbedAudioOptions extends EmbedOptions, AudioOptions {
}
interface EmbedTextsOptions extends EmbedOptions {
    /** Put before every text. */
    prompt?: string;
    /** The name of one of the checkpoint's `prompts`. */
    promptName?: string;
    precision?: Precision;
    /** Tokens a text may have, at most the checkpoint's own limit. */
    maxLength?: number;
    /** Cut texts that are longer; with false they are an error. Default true. */
    truncation?: boolean;
}
type StreamItem = ImageInput | {
    text: string;
} | {
    image: ImageInput;
} | {
    audio: AudioInput;
} | {
    text: string;
    image: ImageInput;
};
type StreamResult = {
    index: number;
    embedding: Float32Array;
    error?: undefined;
} | {
    index: number;
    error: Error;
    embedding?: undefined;
};
/** What a stream takes: the options of images and of texts; its embeddings are float32. */
type EmbedStreamOptions = EmbedImagesOptions & AudioOptions & Omit<EmbedTextsOptions, 'precision'>;
/**
 * Embeds images and texts with a checkpoint.
 *
 * @example
 * const embedder = await Embedder.fromPretrained('openai/clip-vit-base-patch32')
 * const images = await embedder.embedImages(['cat.jpg', 'dog.jpg']) // Tensor float32 [2, 512]
 * const texts = await embedder.embedTexts(['a photo of a cat'])     // Tensor float32 [1, 512]
 */
declare class Embedder {
    #private;
    /** Length of an embedding, unless `truncateDim` asks for another. */
    readonly dimensions: number;
    /** Tokens a text may have; longer ones are cut. 0 if the checkpoint embeds no text. */
    readonly maxLength: number;
    /** The checkpoint's named prompts, empty if it has none. */
    readonly prompts: Readonly<Record<string, string>>;
    private constructor();
    /**
     * Loads a checkpoint from a folder or the Hugging Face Hub.
     * @throws CheckpointError, UnsupportedError (an architecture that embeds nothing), DeviceError.
     */
    static fromPretrained(source: string, options?: LoadOptions): Promise<Embedder>;
    /** The model beneath, for its raw outputs. */
    get model(): Model;
    /**
     * A hash of the checkpoint's weights, the same on every device, in every dtype and file format: vectors of other weights are not comparable.
     * Reads them all, about a gigabyte a second.
     * @throws CheckpointError
     */
    weightsHash(): Promise<string>;
    /** The device in use: 'cpu', 'cuda:0', … */
    get device(): string;
    /** The compute dtype in use: 'f32', 'bf16', 'f16' (CUDA) or 'int8'. */
    get dtype(): string;
    /**
     * Embeds images, or one uint8 Tensor [n, H, W, 3] of images already at the model's size.
     * @returns float32 [n, dimensions]
     * @throws ImageError, ArgumentError with `index` set to the first input that failed.
     */
    embedImages(images: readonly ImageInput[] | TensorLike, options?: EmbedImagesOptions): Promise<Tensor>;
    /**
     * Embeds texts.
     * @returns float32 [n, dimensions], or what `precision` says
     * @throws ArgumentError with `index` set to the first text that failed; CheckpointError for a tokenizer that cannot be read.
     */
    embedTexts(texts: readonly string[], options?: EmbedTextsOptions): Promise<Tensor>;
    /**
     * Embeds sounds: the mean over the frames of each. WAV files are decoded, mixed to one channel and resampled to the checkpoint's rate.
     *
     * @example
     * const clips = await embedder.embedAudio(['bell.wav', { samples: new Float32Array(16000), sampleRate: 16000 }]) // Tensor float32 [2, 768]
     * @returns float32 [n, dimensions]
     * @throws AudioError, ArgumentError with `index` set to the first input that failed.
     */
    embedAudio(clips: readonly AudioInput[], options?: EmbedAudioOptions): Promise<Tensor>;
    /**
     * Embeds a stream of images and texts with bounded memory. An item that fails gives a result with `error`, and the stream goes on; a checkpoint
     * whose weights or tokenizer cannot be read ends it. Results come in the order of the items. Leaving the loop early stops the work.
     */
    embedStream(items: Iterable<StreamItem> | AsyncIterable<StreamItem>, options?: EmbedStreamOptions): AsyncGenerator<StreamResult, void, undefined>;
    /** One image as the model takes it: uint8 RGB [height, width, 3]. */
    preprocess(image: ImageInput, options?: ImageOptions): Promise<Uint8Array>;
    /** Frees the model. Calls under way end with a DisposedError or their result; later ones are refused. */
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}

interface Classification {
    readonly label: string;
    /** Probability over all labels. */
    readonly score: number;
}
interface ClassifyOptions {
    /** Labels in words; absent: the checkpoint's own. */
    labels?: readonly string[];
    /** The sentence a label is put into, at `{}`; default 'This is a photo of {}', as transformers.js has it. */
    template?: string;
    /** How many labels to return, best first; default 5. */
    topK?: number;
    /** Images given to the model at once, 1024 at most; default 32. It changes speed, never results. */
    batchSize?: number;
    allowRemote?: boolean;
    signal?: AbortSignal;
}
type ClassifyResult = {
    index: number;
    labels: Classification[];
    error?: undefined;
} | {
    index: number;
    error: Error;
    labels?: undefined;
};
/**
 * Classifies images one after another, with bounded memory; an image that cannot be read gives a result with `error`.
 * @throws ArgumentError for a wrong option, UnsupportedError if the checkpoint has neither labels of its own nor a text encoder for those given.
 */
declare function classifyImages(embedder: Embedder, images: Iterable<ImageInput> | AsyncIterable<ImageInput>, options?: ClassifyOptions): AsyncGenerator<ClassifyResult, void, undefined>;

interface MatchOptions {
    allowRemote?: boolean;
    signal?: AbortSignal;
}
interface Match {
    readonly text: string;
    /** Among the texts given. */
    readonly index: number;
    /** See `scoreKind`. */
    readonly score: number;
}
type MatchResult = {
    index: number;
    matches: Match[];
    error?: undefined;
} | {
    index: number;
    error: Error;
    matches?: undefined;
};
/**
 * Scores pictures and texts.
 *
 * @example
 * await using matcher = await Matcher.fromPretrained('Salesforce/blip-itm-base-coco')
 * for await (const { matches } of matcher.match(['cat.jpg'], ['a cat', 'a dog'])) console.log(matches[0]) // { text: 'a cat', index: 0, score: 0.99 }
 */
declare class Matcher {
    #private;
    /** What scores are: the probability that a text belongs to a picture, a number that is larger for better matches, or a cosine. */
    readonly scoreKind: 'probability' | 'logit' | 'cosine';
    private constructor();
    /**
     * Loads a checkpoint from a folder or the Hub: one with a matching head, or a dual encoder.
     * @throws CheckpointError, DeviceError, UnsupportedError for one that is neither
     */
    static fromPretrained(source: string, options?: LoadOptions): Promise<Matcher>;
    /** The model beneath. */
    get model(): Model;
    /**
     * The score of every picture and every text.
     * @returns float32 [images, texts]
     * @throws ImageError, ArgumentError with `index` set to the first picture or text that failed
     */
    scores(images: readonly ImageInput[], texts: readonly string[], options?: MatchOptions): Promise<Tensor>;
    /**
     * The texts of each picture, best first. A picture that cannot be read gives a result with `error`, and the others go on.
     * @param options.topK how many; default all
     */
    match(images: readonly ImageInput[], texts: readonly string[], options?: MatchOptions & {
        topK?: number;
    }): AsyncGenerator<MatchResult, void, undefined>;
    /** Frees the model. */
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}

interface RecallAtK {
    readonly k: number;
    /** Part of the queries that have a right answer among the best k, 0 to 1. */
    readonly recall: number;
}
interface RetrievalReport {
    readonly images: number;
    readonly texts: number;
    readonly imageToText: readonly RecallAtK[];
    readonly textToImage: readonly RecallAtK[];
}
/** Pictures and their texts. */
interface RetrievalData {
    readonly images: readonly ImageInput[];
    readonly texts: readonly string[];
    /** The index of the picture that each text belongs to. */
    readonly imageOfText: readonly number[];
}
interface RetrievalOptions {
    /** Default 1, 5 and 10. */
    ks?: readonly number[];
    allowRemote?: boolean;
    signal?: AbortSignal;
}
/**
 * Recall@K of rows of scores; of equal scores the lower column comes first.
 * @param scores float32 [queries, answers], more for better ones
 * @param right for each query the columns of its right answers; one without any counts as missed
 * @throws ShapeError, ArgumentError
 */
declare function recallAtK(scores: Tensor, right: readonly (readonly number[])[], ks?: readonly number[]): RecallAtK[];
/**
 * Scores every picture with every text, and tells Recall@K in both directions.
 *
 * @example
 * const { textToImage } = await evaluateRetrieval(matcher, { images: ['a.jpg', 'b.jpg'], texts: ['a cat', 'a dog'], imageOfText: [0, 1] })
 * @throws ArgumentError for a text of a picture that is not there; what `Matcher.scores` throws
 */
declare function evaluateRetrieval(matcher: Matcher, { images, texts, imageOfText }: RetrievalData, options?: RetrievalOptions): Promise<RetrievalReport>;

interface OpsOptions {
    /** Default 'auto'. */
    device?: string;
    /** The type of the products: 'f32' (default) or 'bf16'. Results are float32. */
    dtype?: string;
    /** Cores to use at most. */
    threads?: number;
    signal?: AbortSignal;
}
interface AttentionOptions extends OpsOptions {
    /** Query i sees key j if j ≤ i + (Sk − Sq); default false. */
    causal?: boolean;
    /** Default 1/√D. */
    scale?: number;
    /** int32 [n + 1], from 0 to S: cuts the S rows of every batch and head into sequences that do not see each other. */
    cuSeqlens?: TensorLike;
}
interface PatchEmbedOptions extends OpsOptions {
    /** float32 [C] */
    bias?: TensorLike;
    /** Of each channel, taken from rescaled uint8 pixels; default 0. */
    mean?: readonly number[];
    /** Of each channel; default 1. */
    std?: readonly number[];
    /** Factor of uint8 pixels; default 1/255. */
    rescale?: number;
    /** float32 [C] */
    classToken?: TensorLike;
    /** float32 [tokens, C] */
    positionEmbedding?: TensorLike;
}
/**
 * softmax(q·kᵀ·scale)·v for each batch and head, float32 [B, H, Sq, D].
 *
 * @param q float [B, H, Sq, D]
 * @param k float [B, H, Sk, D]
 * @param v float [B, H, Sk, D]
 * @example
 * const y = await ops.attention(q, k, v, { causal: true })
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
declare function attention(q: TensorLike, k: TensorLike, v: TensorLike, options?: AttentionOptions): Promise<Tensor>;
/**
 * Pictures to tokens, float32 [B, tokens, C]: uint8 pixels become (pixel/255 − mean)/std, patches are projected, the class token comes
 * first, positions are added.
 *
 * @param images uint8 [B, H, W, 3] or float32 [B, 3, H, W] (taken as they are)
 * @param weight float [C, 3, P, P], or [C, 3·P·P]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
declare function patchEmbed(images: TensorLike, weight: TensorLike, options?: PatchEmbedOptions): Promise<Tensor>;
/**
 * The cosine of each row of `a` with each row of `b`, float32 [m, n]; a row of zeros has cosine 0 with everything.
 *
 * @param a float [m, d]
 * @param b float [n, d]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
declare function cosineSimilarity(a: TensorLike, b: TensorLike, options?: OpsOptions): Promise<Tensor>;
/**
 * The k rows of `corpus` with the greatest cosine to each query: best first, ties to the lower index, NaN last; where k exceeds the
 * corpus, the rest is −Infinity and −1.
 *
 * @param queries float [m, d]
 * @param corpus float32, bfloat16 or int8 [n, d]
 * @returns scores float32 [m, k], indices int32 [m, k]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
declare function cosineTopK(queries: TensorLike, corpus: TensorLike, k: number, options?: OpsOptions): Promise<{
    scores: Tensor;
    indices: Tensor;
}>;

type host_AttentionOptions = AttentionOptions;
type host_OpsOptions = OpsOptions;
type host_PatchEmbedOptions = PatchEmbedOptions;
declare const host_attention: typeof attention;
declare const host_cosineSimilarity: typeof cosineSimilarity;
declare const host_cosineTopK: typeof cosineTopK;
declare const host_patchEmbed: typeof patchEmbed;
declare namespace host {
  export { host_attention as attention, host_cosineSimilarity as cosineSimilarity, host_cosineTopK as cosineTopK, host_patchEmbed as patchEmbed };
  export type { host_AttentionOptions as AttentionOptions, host_OpsOptions as OpsOptions, host_PatchEmbedOptions as PatchEmbedOptions };
}

interface VectorIndexOptions {
    /** Length of a vector. */
    dimensions: number;
    /** How rows are stored: float32, bfloat16, or int8 with one scale a row. Default 'f32'. */
    dtype?: 'f32' | 'bf16' | 'int8';
    /** What makes the rows, such as `await embedder.weightsHash()`: saved with them, so that `load` notices vectors of another model. */
    model?: string;
    device?: string;
    threads?: number;
}
interface VectorIndexLoadOptions {
    /** What makes the queries; an index that was saved with another `model` is refused, one without is taken. */
    model?: string;
    device?: string;
    threads?: number;
}
interface Hit {
    /** The id the row was added with. */
    id?: string;
    /** The row's position in order of adding. */
    index: number;
    /** Cosine similarity. */
    score: number;
}
/**
 * An index of embeddings for exact nearest-neighbour search by cosine similarity.
 *
 * @example
 * const index = await VectorIndex.create({ dimensions: embedder.dimensions, model: await embedder.weightsHash() })
 * await index.add(await embedder.embedImages(paths), paths)
 * const [hits] = await index.search(await embedder.embedTexts(['a photo of a cat']), 10)
 */
declare class VectorIndex {
    #private;
    readonly dimensions: number;
    readonly dtype: 'f32' | 'bf16' | 'int8';
    /** What makes the rows, as it was created or saved with. */
    readonly model: string | undefined;
    private constructor();
    /** @throws ArgumentError for options that make no index, DeviceError. */
    static create(options: VectorIndexOptions): Promise<VectorIndex>;
    /** Rows in the index. */
    get size(): number;
    /**
     * Adds rows, in order; a search that starts later sees all of them. The tensor is read until the promise resolves.
     * @param embeddings float32 [n, dimensions]
     * @param ids one for each row
     * @throws ShapeError, ArgumentError (NaN or infinity, ids of another number); nothing is added then
     */
    add(embeddings: TensorLike, ids?: readonly string[]): Promise<void>;
    /**
     * The `k` nearest rows of each query, best first; ties to the lower index.
     * @param queries float32 [m, dimensions]
     * @returns m lists of min(k, size) hits
     * @throws ArgumentError for a query with a number that is not finite, ShapeError
     */
    search(queries: TensorLike, k: number): Promise<Hit[][]>;
    /** Writes the index to one safetensors file: `embeddings` as stored, and the ids. */
    save(path: string): Promise<void>;
    /**
     * Reads an index that `save` wrote.
     * @throws CheckpointError naming the file and what is wrong with it; ArgumentError where it was made by another `model` than is asked for
     */
    static load(path: string, options?: VectorIndexLoadOptions): Promise<VectorIndex>;
    /** Frees the device's memory. */
    dispose(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}

export { ArgumentError, AudioError, AutoModel, AutoProcessor, AutoTokenizer, CheckpointError, ChiasmaError, DTypeError, Device, DeviceError, DisposedError, Embedder, ImageError, Matcher, Model, OutOfMemoryError, Parameter, Program, ShapeError, Tensor, TensorLike, TraceError, UnsupportedError, Value, ValueType, VectorIndex, classifyImages, compile, evaluateRetrieval, listDevices, memoryUsage, host as ops, readRegionsNpz, readRegionsTsv, recallAtK, regionInputs };
export type { AudioEncoder, AudioFeatures, AudioInput, AudioOptions, AudioProcessor, Classification, Classifier, ClassifyOptions, ClassifyResult, DeviceInfo, DeviceOptions, EmbedAudioOptions, EmbedImagesOptions, EmbedOptions, EmbedProgress, EmbedStreamOptions, EmbedTextsOptions, EmbedTimings, ErrorFields, ForwardOptions, Hit, ImageEncoder, ImageInput, LoadOptions, Match, MatchOptions, MatchResult, Precision, Processor, ProcessorOptions, ProgressEvent, RecallAtK, Regions, RetrievalData, RetrievalOptions, RetrievalReport, RunOptions, StreamItem, StreamResult, TextEncoder, TokenizeOptions, Tokenizer, VectorIndexLoadOptions, VectorIndexOptions };
