// Generated from lib by `npm run build:typings`.

type DataType = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'int64' | 'bool';
type FloatType = 'float32' | 'bfloat16' | 'float16';
/** Float16Array, for programs that are compiled with a library that has it. */
type Float16Data = typeof globalThis extends {
    Float16Array: {
        prototype: infer Data;
    };
} ? Data : never;
type TensorData = Float32Array | Uint16Array | Int8Array | Uint8Array | Int32Array | BigInt64Array | Float16Data;

/** Anything with a tensor's three fields; another library's tensor is as good as ours. */
interface TensorLike {
    readonly type: DataType;
    readonly data: TensorData | ArrayLike<number> | ArrayLike<bigint>;
    readonly dims: readonly number[];
}
/**
 * A tensor in host memory.
 *
 * @example
 * const t = new Tensor('float32', new Float32Array([1, 2, 3, 4]), [2, 2])
 * @throws ArgumentError for an unknown type, if `data` is not the array class of `type`, or its length is not the product of `dims`.
 */
declare class Tensor implements TensorLike {
    readonly type: DataType;
    readonly data: TensorData;
    readonly dims: readonly number[];
    constructor(type: DataType, data: TensorData, dims: readonly number[]);
    /** Number of elements. */
    get size(): number;
    /** Checks a tensor-like object and wraps it; `name` is what the error calls it. */
    static from(value: TensorLike, name?: string): Tensor;
}

type Shape = readonly number[];

/**
 * Rows that vary: `shape[0]` is `per` for each one counted by `name` (say 'images', 197 tokens each), and `extra` more.
 * Cumulative lengths of the sequences counted by `name` are `{ name, per: 1, extra: 1 }`: one row more than there are sequences.
 */
interface Extent {
    readonly name: string;
    readonly per: number;
    readonly extra?: number;
}
type AttributeValue = number | string | boolean | readonly number[];
type Attributes = Readonly<Record<string, AttributeValue>>;
/** How a device stores a parameter: as it is, or prepared (packed) as the weight of `linear` and `patchEmbed`. */
type WeightRole = 'plain' | 'linear';
/** A tensor of the checkpoint, as one module uses it. Identity matters: two uses of one Parameter share device memory. */
interface Parameter {
    /** The checkpoint's name for it. */
    readonly name: string;
    readonly shape: Shape;
    /** Storage type on the device. */
    readonly dtype: DataType;
    readonly role: WeightRole;
    /** How it lies in a stored tensor that has another shape. */
    readonly view?: StoredView;
    /** What it is computed from, for one that no checkpoint stores as it is; `name` is then for messages only. */
    readonly derived?: Derived;
    /** A factor of each row [shape[0]], multiplied in while the weight is loaded: a batch norm's, folded. */
    readonly rowScale?: Derived;
}
/** A part of a stored tensor, with its dimensions in another order. */
interface StoredView {
    /** Of the tensor as it is stored. */
    readonly shape: Shape;
    /** First index of the stored first dimension; the parameter has as many as its size says. Default 0. */
    readonly begin?: number;
    /** The stored dimensions in the parameter's order, say [0, 2, 3, 1]. Default: as stored. */
    readonly order?: readonly number[];
}
/** A tensor computed on the host from others of the checkpoint when the model is loaded: for small ones. */
interface Derived {
    /** By their names in the checkpoint. */
    readonly from: readonly {
        readonly name: string;
        readonly shape: Shape;
    }[];
    /** The stored numbers, row-major, in the order of `from`, to those of the parameter. */
    compute(tensors: readonly Float32Array[]): Float32Array | Promise<Float32Array>;
}
interface Node {
    /** An op of the op table, or a leaf: 'input', 'parameter', 'constant'. */
    readonly op: string;
    readonly inputs: readonly (Value | undefined)[];
    readonly attributes: Attributes;
    readonly outputs: readonly Value[];
    readonly leaf?: {
        readonly name?: string;
        readonly parameter?: Parameter;
        readonly tensor?: Tensor;
    };
}
declare class Value {
    readonly node: Node;
    readonly index: number;
    readonly shape: Shape;
    readonly dtype: DataType;
    readonly extent?: Extent | undefined;
    constructor(node: Node, index: number, shape: Shape, dtype: DataType, extent?: Extent | undefined);
    /** @throws TraceError */
    get data(): never;
    toString(): string;
    /** A value in arithmetic or a comparison is a branch on data that is not there. @throws TraceError */
    [Symbol.toPrimitive](hint: string): string;
}
interface ValueType {
    readonly shape: Shape;
    readonly dtype: DataType;
    readonly extent?: Extent;
}

export { Tensor, Value };
export type { DataType, Derived, FloatType, Parameter, Shape, StoredView, TensorData, TensorLike, ValueType, WeightRole };
