// The options of public calls: each has a rule for every option it takes, and a call refuses a value of the wrong kind and a name that it
// does not know, so that a misspelled option is an error and never silently the default.

import { ArgumentError } from './errors.js'

/** What an option may be; `undefined` always may, and means the default. */
export interface OptionRule {
  /** Completes the sentence "expected …". */
  readonly expected: string
  accepts(value: unknown): boolean
}

/** A rule for each option of `O`; the compiler asks for those that are missing. */
export type OptionRules<O> = { readonly [K in keyof Required<O>]: OptionRule }

function rule(expected: string, accepts: (value: unknown) => boolean): OptionRule {
  return { expected, accepts }
}

/** The kinds of options. */
export const option = {
  /** Checked where it is used. */
  any: rule('anything', () => true),
  flag: rule('true or false', (value) => typeof value === 'boolean'),
  text: rule('a string', (value) => typeof value === 'string'),
  finite: rule('a finite number', Number.isFinite),
  positiveInteger: rule('a positive integer', (value) => Number.isSafeInteger(value) && (value as number) > 0),
  positive: rule('a number above 0', (value) => typeof value === 'number' && value > 0),
  callback: rule('a function', (value) => typeof value === 'function'),
  signal: rule('an AbortSignal', (value) => value instanceof AbortSignal),
  texts: rule('an array of strings', (value) => Array.isArray(value) && value.every((one) => typeof one === 'string')),
  oneOf: (names: readonly string[]) => rule(names.map((name) => `'${name}'`).join(', ').replace(/, ([^,]+)$/, ' or $1'), (value) => names.includes(value as string)),
} as const

/**
 * Checks the options of a call.
 *
 * @param call its name, as errors give it
 * @throws ArgumentError naming the option, what came and what was expected
 */
export function checkOptions<O extends object>(call: string, given: O, rules: OptionRules<O>): void {
  if (given === null || typeof given !== 'object' || Array.isArray(given)) throw new ArgumentError(`[${call}] the options are ${shown(given)}; expected an object`, { field: 'options' })
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue
    if (!Object.hasOwn(rules, name)) throw unknownOption(call, name, Object.keys(rules))
    const { expected, accepts } = rules[name as keyof O]
    if (!accepts(value)) throw new ArgumentError(`[${call}] ${name} is ${shown(value)}; expected ${expected}`, { field: name })
  }
}

function unknownOption(call: string, name: string, known: readonly string[]): ArgumentError {
  const plain = (text: string) => text.toLowerCase().replace(/[_-]/g, '')
  const near = known.find((one) => plain(one) === plain(name)) ?? known.find((one) => distance(plain(one), plain(name)) <= 2)
  const hint = near ? `did you mean '${near}'?` : `expected ${known.join(', ')}`
  return new ArgumentError(`[${call}] there is no option '${name}'; ${hint}`, { field: name })
}

/** Letters to insert, remove or replace to make `a` of `b` (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}

/** A value as error messages show it. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`
  if (Array.isArray(value)) return value.length > 8 ? `an array of ${value.length}` : `[${value.map(shown).join(', ')}]`
  if (value !== null && typeof value === 'object') return value.constructor === Object ? 'an object' : `an object of class ${value.constructor?.name ?? 'none'}`
  return typeof value === 'function' ? 'a function' : typeof value === 'bigint' ? `${value}n` : String(value)
}
