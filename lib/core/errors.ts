// The error family. Every error that chiasma throws on purpose is a ChiasmaError with a stable `code` and, where it helps a
// program, fields (the op, the shapes, the file). Sentences read `[op] what came; what was expected`.

export interface ErrorFields {
  /** Name of the op that refused its inputs. */
  op?: string
  /** Shapes of the inputs involved, in order. */
  shapes?: readonly (readonly number[])[]
  /** File or URL the error is about. */
  file?: string
  /** Configuration or option field the error is about. */
  field?: string
  /** Index of the failed input in the caller's list. */
  index?: number
  /** Tensor names, for checkpoint errors. */
  missing?: readonly string[]
  mismatched?: readonly string[]
  unexpected?: readonly string[]
  cause?: unknown
}

/** Base class of all errors chiasma throws on purpose. */
export class ChiasmaError extends Error {
  readonly code: string
  declare readonly op?: string
  declare readonly shapes?: readonly (readonly number[])[]
  declare readonly file?: string
  declare readonly field?: string
  declare readonly index?: number
  declare readonly missing?: readonly string[]
  declare readonly mismatched?: readonly string[]
  declare readonly unexpected?: readonly string[]

  constructor(code: string, message: string, fields: ErrorFields = {}) {
    super(message, 'cause' in fields ? { cause: fields.cause } : undefined)
    this.name = new.target.name
    this.code = code
    const { cause: _cause, ...rest } = fields
    Object.assign(this, rest)
  }
}

type FamilyMember = new (message: string, fields?: ErrorFields & { code?: string }) => ChiasmaError

function family(code: string): FamilyMember {
  return class extends ChiasmaError {
    constructor(message: string, fields: ErrorFields & { code?: string } = {}) {
      const { code: specific, ...rest } = fields
      super(specific ?? code, message, rest)
    }
  }
}

/** Shapes that do not fit together. */
export class ShapeError extends family('ERR_SHAPE') {}
/** A dtype an op does not take. */
export class DTypeError extends family('ERR_DTYPE') {}
/** An argument or input outside what is allowed. */
export class ArgumentError extends family('ERR_ARGUMENT') {}
/** Something this build, device or architecture cannot do. */
export class UnsupportedError extends family('ERR_UNSUPPORTED') {}
/** Data was asked of a value that is only being traced. */
export class TraceError extends family('ERR_TRACE') {}
/** A checkpoint, its configuration or a Hub download is broken, incomplete or not reachable. */
export class CheckpointError extends family('ERR_CHECKPOINT') {}
/** An image that cannot be read or decoded. */
export class ImageError extends family('ERR_IMAGE') {}
/** A sound that cannot be read or decoded. */
export class AudioError extends family('ERR_AUDIO') {}
/** A device is absent, lost or cannot be loaded. */
export class DeviceError extends family('ERR_DEVICE') {}
/** Memory ran out on the host or the device. */
export class OutOfMemoryError extends family('ERR_OUT_OF_MEMORY') {}
/** The object was disposed of before or during the call. */
export class DisposedError extends family('ERR_DISPOSED') {}
