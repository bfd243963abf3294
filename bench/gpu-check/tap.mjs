// Stands in for the package tap where the tests run without npm: the few assertions they use, results as TAP lines, exit code 1 on a failure.
import { isDeepStrictEqual, inspect } from 'node:util'

let passed = 0
let failed = 0
let queue = Promise.resolve()

class Test {
  #title
  #teardown = []
  #inner = Promise.resolve()

  constructor(title) {
    this.#title = title
  }

  #report(ok, message, details) {
    if (ok) passed++
    else {
      failed++
      console.log(`not ok ${[this.#title, message].filter(Boolean).join(' > ')}`)
      if (details !== undefined) console.log(`  # ${inspect(details, { depth: 6, breakLength: 160 }).replaceAll('\n', '\n  # ')}`)
    }
    return ok
  }

  ok = (value, message = 'is true', details) => this.#report(Boolean(value), message, details)
  notOk = (value, message = 'is false', details) => this.#report(!value, message, details)
  equal = (got, wanted, message = 'is equal') => this.#report(Object.is(got, wanted), message, { got, wanted })
  not = (got, unwanted, message = 'differs') => this.#report(!Object.is(got, unwanted), message, { got })
  strictSame = (got, wanted, message = 'is the same') => this.#report(isDeepStrictEqual(got, wanted), message, { got, wanted })
  same = (got, wanted, message) => this.strictSame(got, wanted, message)
  pass = (message) => this.#report(true, message)
  fail = (message, details) => this.#report(false, message, details)
  comment = (...words) => console.log(`# ${words.join(' ')}`)
  teardown = (fn) => void this.#teardown.push(fn)
  end = () => {}

  match = (got, pattern, message = 'matches') => {
    const fits = (value, rule) =>
      rule instanceof RegExp ? rule.test(String(value))
      : rule !== null && typeof rule === 'object' ? value != null && Object.entries(rule).every(([key, each]) => fits(value[key], each))
      : typeof rule === 'string' && typeof value === 'string' ? value.includes(rule)
      : Object.is(value, rule)
    return this.#report(fits(got, pattern), message, { got, pattern })
  }

  rejects = async (promise, pattern, message = 'is rejected') => {
    try {
      await (typeof promise === 'function' ? promise() : promise)
    } catch (error) {
      return typeof pattern === 'object' ? this.match(error, pattern, message) : this.pass(message)
    }
    return this.fail(message, 'it was not')
  }

  /** As tap's: (title, options?, fn). One after the other. */
  test = (title, ...rest) => {
    const fn = rest.find((each) => typeof each === 'function')
    const { skip } = rest.find((each) => typeof each === 'object') ?? {}
    const full = [this.#title, title].filter(Boolean).join(' > ')
    const run = async () => {
      if (skip) return console.log(`ok ${full} # SKIP ${skip === true ? '' : skip}`)
      const inner = new Test(full)
      const [before, started] = [failed, performance.now()]
      try {
        await fn(inner)
        await inner.#inner
      } catch (error) {
        inner.fail('ended with an error', error)
      }
      for (const each of inner.#teardown.reverse()) await each()
      if (failed === before) console.log(`ok ${full} # ${(performance.now() - started).toFixed(0)} ms`)
    }
    const after = this.#inner.then(run)
    this.#inner = after
    if (this === root) queue = after
    return after
  }
}

const root = new Test('')
process.on('beforeExit', async () => {
  await queue
  console.log(`# { total: ${passed + failed}, pass: ${passed}, fail: ${failed} }`)
  process.exit(failed || !passed ? 1 : 0)
})

export default root
export { Test }
