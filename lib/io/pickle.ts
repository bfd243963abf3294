// Pickle without its power: a stack machine for the opcodes that torch.save and TorchScript write (protocols 2 to 5), whose globals
// come from an allow-list and whose results are inert data. Nothing is imported, called or looked up by name; an opcode or
// a global that is not listed is an error. Bounds: bytes, opcodes, stack. See https://docs.python.org/3/library/pickletools.html.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { CheckpointError } from '../core/errors.js'

/** A name that the pickle refers to. What it may be and what REDUCE makes of it is up to PickleRules. */
export class PickleGlobal {
  constructor(readonly name: string) {}
}

/** An object of a class nobody here knows, allowed for TorchScript: its class and its attributes, nothing else. */
export class PickleRecord {
  state: unknown
  constructor(readonly className: string) {}
}

export class PickleTuple {
  constructor(readonly items: readonly unknown[]) {}
}

/** Key, value, key, value … in the order they were set. */
export class PickleDict {
  readonly items: unknown[] = []
}

/** Lists, and sets too, are arrays; integers are numbers, or bigints beyond 2^53; bytes are Uint8Array; None is null. */
export type PickleValue = unknown

export interface PickleRules {
  /** A short name of the stream for errors: 'data.pkl of x.bin'. */
  readonly what: string
  readonly file: string
  /** Whether a global (`module.name`) may occur. */
  allows(global: string): boolean
  /**
   * What calling an allowed global with these arguments gives. Throws `PickleProblem` where it makes no sense.
   * @param spend told, before, how many elements of a collection are copied or looked at: one may be an argument many times
   */
  reduce(global: string, args: readonly unknown[], spend: (elements: number) => void): unknown
  /** Whether objects of this class may be rebuilt as PickleRecord. */
  allowsRecord(global: string): boolean
  /** What a persistent id stands for. */
  persistent(id: unknown): unknown
}

/** A reason without the place; unpickle adds that. */
export class PickleProblem extends Error {}

/** Thrown where the bytes end before STOP; a reader with more bytes may try again. */
export class PickleTruncated extends CheckpointError {
  override name = 'CheckpointError' // to the user it is one
}

/** A pickle of weights has some 40 opcodes a tensor; this allows for a hundred thousand tensors. Elements that calls copy or look at count as much. */
const MAX_OPCODES = 5_000_000
const MAX_STACK = 1_000_000
/** Bytes of an integer: PyTorch's magic number has 10. */
const MAX_LONG = 64
const OPCODES_PER_TURN = 50_000

/**
 * Decodes one pickle from `bytes`, beginning at `start`.
 * @returns its value and where it ended.
 * @throws CheckpointError (a global that is not allowed is named), PickleTruncated
 */
export async function unpickle(bytes: Buffer, rules: PickleRules, start = 0, signal?: AbortSignal): Promise<{ value: PickleValue; end: number }> {
  const machine = new Machine(bytes, start, rules)
  try {
    for (let turn = OPCODES_PER_TURN; !machine.step(); ) {
      if (machine.spent < turn) continue
      turn = machine.spent + OPCODES_PER_TURN
      await nextTurn()
      signal?.throwIfAborted()
    }
  } catch (error) {
    if (!(error instanceof PickleProblem)) throw error
    throw new CheckpointError(`${rules.what}: ${error.message} (at byte ${machine.at})`, { file: rules.file })
  }
  return { value: machine.result, end: machine.at }
}

class Machine {
  result: PickleValue
  /** Opcodes, and what their calls copied or looked at. */
  spent = 0
  private stack: unknown[] = []
  private readonly marks: unknown[][] = []
  private readonly memo = new Map<number, unknown>()

  constructor(
    private readonly bytes: Buffer,
    public at: number,
    private readonly rules: PickleRules,
  ) {}

  /** Executes one opcode; true after STOP. */
  step(): boolean {
    this.spend(1)
    const opcode = this.take(1)[0]!
    const run = OPCODES[opcode]
    if (opcode === STOP) {
      this.result = this.pop()
      return true
    }
    if (!run) throw new PickleProblem(`opcode 0x${opcode.toString(16)} is not allowed`)
    run(this)
    if (this.stack.length > MAX_STACK) throw new PickleProblem(`more than ${MAX_STACK} values on the stack`)
    return false
  }

  private readonly spend = (elements: number): void => {
    this.spent += elements
    if (this.spent > MAX_OPCODES) throw new PickleProblem(`more than ${MAX_OPCODES} opcodes and elements of what they copy`)
  }

  take(count: number): Buffer {
    if (this.at + count > this.bytes.length) throw this.truncated()
    return this.bytes.subarray(this.at, (this.at += count))
  }

  line(): string {
    const end = this.bytes.indexOf(0x0a, this.at)
    if (end < 0) throw this.truncated()
    const text = this.take(end - this.at).toString('utf8')
    this.at++
    return text
  }

  private truncated(): PickleTruncated {
    return new PickleTruncated(`${this.rules.what} ends in the middle of its pickle`, { file: this.rules.file })
  }

  push(value: unknown): void {
    this.stack.push(value)
  }

  pop(): unknown {
    if (this.stack.length === 0) throw new PickleProblem('stack underflow')
    return this.stack.pop()
  }

  top(): unknown {
    if (this.stack.length === 0) throw new PickleProblem('stack underflow')
    return this.stack.at(-1)
  }

  mark(): void {
    if (this.marks.length >= MAX_STACK) throw new PickleProblem(`more than ${MAX_STACK} marks`)
    this.marks.push(this.stack)
    this.stack = []
  }

  /** Everything pushed since the last mark. */
  popMark(): unknown[] {
    const items = this.stack
    const below = this.marks.pop()
    if (!below) throw new PickleProblem('no mark on the stack')
    this.stack = below
    return items
  }

  popTuple(count: number): void {
    const items: unknown[] = new Array(count)
    for (let i = count - 1; i >= 0; i--) items[i] = this.pop()
    this.push(new PickleTuple(items))
  }

  remember(index: number): void {
    this.memo.set(index, this.top())
  }

  memoize(): void {
    this.remember(this.memo.size)
  }

  recall(index: number): void {
    if (!this.memo.has(index)) throw new PickleProblem(`memo ${index} was never set`)
    this.push(this.memo.get(index))
  }

  global(module: unknown, name: unknown): void {
    if (typeof module !== 'string' || typeof name !== 'string') throw new PickleProblem('a global whose name is no string')
    if (module.length + name.length > 500) throw new PickleProblem(`a global whose name has ${module.length + name.length} characters`)
    const full = `${module}.${name}`
    if (!this.rules.allows(full)) {
      throw new PickleProblem(`the global ${full} is not on the list of what a checkpoint may name; nothing was executed`)
    }
    this.push(new PickleGlobal(full))
  }

  appendTo(items: readonly unknown[]): void {
    const list = this.top()
    if (!Array.isArray(list)) throw new PickleProblem('items for what is no list')
    for (const item of items) list.push(item)
  }

  setItems(items: readonly unknown[]): void {
    const dict = this.top()
    if (!(dict instanceof PickleDict) || items.length % 2 !== 0) throw new PickleProblem('keys and values for what is no dictionary')
    for (const item of items) dict.items.push(item)
  }

  reduce(): void {
    const args = this.pop()
    const callee = this.pop()
    if (!(callee instanceof PickleGlobal) || !(args instanceof PickleTuple)) throw new PickleProblem('a call of what is no allowed global')
    this.push(this.rules.reduce(callee.name, args.items, this.spend))
  }

  newObject(): void {
    const args = this.pop()
    const cls = this.pop()
    if (!(cls instanceof PickleGlobal) || !(args instanceof PickleTuple)) throw new PickleProblem('an object of what is no class')
    if (!this.rules.allowsRecord(cls.name)) throw new PickleProblem(`an object of class ${cls.name} is not allowed`)
    this.push(new PickleRecord(cls.name))
  }

  build(): void {
    const state = this.pop()
    const object = this.top()
    // OrderedDict carries `_metadata`, which says nothing about tensors.
    if (object instanceof PickleDict) return
    if (!(object instanceof PickleRecord)) throw new PickleProblem('attributes for what is no object')
    object.state = state
  }

  persistent(): void {
    this.push(this.rules.persistent(this.pop()))
  }
}

/** Two's complement, little-endian. */
function long(bytes: Buffer): number | bigint {
  if (bytes.length === 0) return 0
  const value = BigInt.asIntN(bytes.length * 8, BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`))
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}

function longOf(m: Machine, length: number): number | bigint {
  if (length > MAX_LONG) throw new PickleProblem(`an integer of ${length} bytes`)
  return long(m.take(length))
}

function length8(m: Machine): number {
  const length = m.take(8).readBigUInt64LE()
  // Whatever does not fit a number does not fit the file either.
  return length > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(length)
}

const STOP = 0x2e

const OPCODES: Readonly<Record<number, (m: Machine) => void>> = {
  0x80: m => {
    const protocol = m.take(1)[0]!
    if (protocol < 2 || protocol > 5) throw new PickleProblem(`pickle protocol ${protocol}; expected 2 to 5`)
  },
  0x95: m => m.take(8), // FRAME: only a hint
  0x28: m => m.mark(), // MARK
  0x30: m => m.pop(), // POP
  0x31: m => m.popMark(), // POP_MARK
  0x32: m => m.push(m.top()), // DUP
  0x4e: m => m.push(null), // NONE
  0x88: m => m.push(true), // NEWTRUE
  0x89: m => m.push(false), // NEWFALSE
  0x4a: m => m.push(m.take(4).readInt32LE()), // BININT
  0x4b: m => m.push(m.take(1)[0]), // BININT1
  0x4d: m => m.push(m.take(2).readUInt16LE()), // BININT2
  0x8a: m => m.push(longOf(m, m.take(1)[0]!)), // LONG1
  0x8b: m => m.push(longOf(m, m.take(4).readUInt32LE())), // LONG4
  0x47: m => m.push(m.take(8).readDoubleBE()), // BINFLOAT
  0x55: m => m.push(m.take(m.take(1)[0]!).toString('latin1')), // SHORT_BINSTRING
  0x54: m => m.push(m.take(m.take(4).readUInt32LE()).toString('latin1')), // BINSTRING
  0x58: m => m.push(m.take(m.take(4).readUInt32LE()).toString('utf8')), // BINUNICODE
  0x8c: m => m.push(m.take(m.take(1)[0]!).toString('utf8')), // SHORT_BINUNICODE
  0x8d: m => m.push(m.take(length8(m)).toString('utf8')), // BINUNICODE8
  0x43: m => m.push(m.take(m.take(1)[0]!)), // SHORT_BINBYTES
  0x42: m => m.push(m.take(m.take(4).readUInt32LE())), // BINBYTES
  0x8e: m => m.push(m.take(length8(m))), // BINBYTES8
  0x5d: m => m.push([]), // EMPTY_LIST
  0x6c: m => m.push(m.popMark()), // LIST
  0x61: m => m.appendTo([m.pop()]), // APPEND
  0x65: m => m.appendTo(m.popMark()), // APPENDS
  0x8f: m => m.push([]), // EMPTY_SET
  0x90: m => m.appendTo(m.popMark()), // ADDITEMS
  0x91: m => m.push(m.popMark()), // FROZENSET
  0x29: m => m.popTuple(0), // EMPTY_TUPLE
  0x85: m => m.popTuple(1), // TUPLE1
  0x86: m => m.popTuple(2), // TUPLE2
  0x87: m => m.popTuple(3), // TUPLE3
  0x74: m => m.push(new PickleTuple(m.popMark())), // TUPLE
  0x7d: m => m.push(new PickleDict()), // EMPTY_DICT
  0x64: m => {
    const items = m.popMark() // DICT
    m.push(new PickleDict())
    m.setItems(items)
  },
  0x73: m => {
    const value = m.pop() // SETITEM
    m.setItems([m.pop(), value])
  },
  0x75: m => m.setItems(m.popMark()), // SETITEMS
  0x71: m => m.remember(m.take(1)[0]!), // BINPUT
  0x72: m => m.remember(m.take(4).readUInt32LE()), // LONG_BINPUT
  0x94: m => m.memoize(), // MEMOIZE
  0x68: m => m.recall(m.take(1)[0]!), // BINGET
  0x6a: m => m.recall(m.take(4).readUInt32LE()), // LONG_BINGET
  0x63: m => m.global(m.line(), m.line()), // GLOBAL
  0x93: m => {
    const name = m.pop() // STACK_GLOBAL
    m.global(m.pop(), name)
  },
  0x52: m => m.reduce(), // REDUCE
  0x81: m => m.newObject(), // NEWOBJ
  0x62: m => m.build(), // BUILD
  0x51: m => m.persistent(), // BINPERSID
}
