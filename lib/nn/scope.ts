// A place in a checkpoint: module paths are checkpoint paths. Modules ask it for their parameters by name, shape and role, and it
// collects what they asked for, so that one call can match all of it to the files. (The idea is that of candle's VarBuilder.)

import type { DataType, FloatType } from '../core/dtype.js'
import { ArgumentError } from '../core/errors.js'
import { sameShape, type Shape } from '../core/shape.js'
import type { Derived, Parameter, StoredView, WeightRole } from '../core/value.js'

/** The type of weights and of the inputs of matrix products; sums, statistics and the residual stream are float32 in either. */
export type ComputeType = FloatType
/** The type of the weights in transformer blocks. */
export type ProductType = ComputeType | 'int8'

/** What is known of a checkpoint before its tensors are read. */
export interface TensorNames {
  has(name: string): boolean
  /** Of the tensor as it is stored. */
  shapeOf?(name: string): Shape | undefined
}

export interface ParameterOptions {
  /** How the device stores it; 'linear' for the weights of `linear` and `patchEmbed`. Default 'plain'. */
  role?: WeightRole
  /** Default: the compute type for role 'linear', else float32. */
  dtype?: DataType
  /** The parameter is a part of the stored tensor, or has its dimensions in another order. */
  view?: StoredView
  /** The parameter is computed from these tensors, which have their full names; `name` is what messages call it. */
  derived?: Derived
  /** A factor for each row, multiplied in while loading. */
  rowScale?: Derived
}

/**
 * @example
 * const scope = Scope.root(new Set(['layers.0.weight']), 'float32')
 * const weight = scope.at('layers', 0).parameter('weight', [8, 8], { role: 'linear' })
 */
export class Scope {
  private constructor(
    private readonly names: TensorNames,
    private readonly collected: Map<string, Parameter>,
    readonly computeType: ComputeType,
    readonly productType: ProductType,
    /** Dotted path of this place; '' is the root. */
    readonly path: string,
  ) {}

  /** The root of a checkpoint. */
  static root(names: TensorNames, computeType: ComputeType, productType: ProductType = computeType): Scope {
    return new Scope(names, new Map(), computeType, productType, '')
  }

  /** The place below this one; parts may hold dots, '' stays here. */
  at(...parts: (string | number)[]): Scope {
    const path = [this.path, ...parts].filter(part => part !== '').join('.')
    return new Scope(this.names, this.collected, this.computeType, this.productType, path)
  }

  /** The checkpoint's name of `name` in this place. */
  nameOf(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`
  }

  /** Whether the checkpoint has the tensor; for optional parts, such as poolers and heads. */
  has(name: string): boolean {
    return this.names.has(this.nameOf(name))
  }

  /** The first dimension of the tensor as it is stored: for sizes that no configuration tells. */
  rowsOf(name: string): number | undefined {
    return this.names.shapeOf?.(this.nameOf(name))?.[0]
  }

  /** The first of these places where the checkpoint has `probe`, else the first: for checkpoints saved with or without a prefix. */
  firstWith(probe: string, prefixes: readonly string[]): Scope {
    const places = prefixes.map(prefix => this.at(prefix))
    return places.find(place => place.has(probe)) ?? places[0] ?? this
  }

  /** Asks for a tensor of the checkpoint, or what is made of some. Asked twice in the same way, it is the same parameter. */
  parameter(name: string, shape: Shape, options: ParameterOptions = {}): Parameter {
    const role = options.role ?? 'plain'
    const dtype = options.dtype ?? (role === 'linear' ? this.computeType : 'float32')
    const full = this.nameOf(name)
    const { view, derived, rowScale } = options
    const key = `${full} ${role} ${dtype}${view ? ` ${view.begin ?? 0} ${view.order ?? ''}` : ''}${derived ? ' derived' : ''}${rowScale ? ' scaled' : ''}`
    const known = this.collected.get(key)
    if (known) {
      if (!sameShape(known.shape, shape)) throw new ArgumentError(`[Scope] ${full} is wanted as [${known.shape}] and as [${shape}]`, { field: full })
      return known
    }
    const made: Parameter = {
      ...{ name: full, shape: [...shape], dtype, role },
      ...(view && { view }),
      ...(derived && { derived }),
      ...(rowScale && { rowScale }),
    }
    this.collected.set(key, made)
    return made
  }

  /** Everything that was asked for below the root, in order. */
  get parameters(): Parameter[] {
    return [...this.collected.values()]
  }
}
