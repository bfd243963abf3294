// The only file that loads the addon: at the first native call, never at import, so that importing succeeds on every platform.
// Native errors carry a code; here they become the error family, with the stack of the JavaScript caller.

import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Addon, NativeTask } from '../../typings/addon.js'
import {
  ArgumentError,
  CheckpointError,
  ChiasmaError,
  DeviceError,
  DisposedError,
  DTypeError,
  ImageError,
  OutOfMemoryError,
  ShapeError,
  UnsupportedError,
} from './errors.js'

const SUPPORTED = 'linux-x64 with glibc 2.28 or later'

// lib/core or dist/core; both lie two below the package's root.
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** Builds the addon from the packed sources: the command to type in the folder this process runs in. */
export function buildCommand(): string {
  const script = join(root, 'scripts/build-addon.mjs')
  const near = relative(process.cwd(), script)
  const path = near.startsWith('..') ? script : near
  return `node ${/\s/.test(path) ? `"${path}"` : path}`
}

let loaded: Addon | undefined

function load(): Addon {
  if (loaded) return loaded
  const require = createRequire(import.meta.url)
  try {
    const nodeGypBuild = require('node-gyp-build') as (folder: string) => Addon
    loaded = nodeGypBuild(root)
    return loaded
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).split('\n')[0]
    throw new DeviceError(
      `the native addon cannot be loaded on ${platform()} (${reason}); prebuilt: ${SUPPORTED}; elsewhere build it from source ` +
        `(C++20 compiler, CMake 3.22 or later): ${buildCommand()}`,
      { cause },
    )
  }
}

/** This platform in words, for the error above: `linux-arm64 (musl)`, `linux-x64 (glibc 2.17)`. */
function platform(): string {
  const name = `${process.platform}-${process.arch}`
  if (process.platform !== 'linux') return name
  const report = process.report as typeof process.report & { excludeNetwork?: boolean }
  report.excludeNetwork = true // which would look up host names
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } }
  return `${name} (${header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl'})`
}

const classes: Readonly<Record<string, new (message: string, fields: { cause: unknown }) => ChiasmaError>> = {
  ERR_ARGUMENT: ArgumentError,
  ERR_SHAPE: ShapeError,
  ERR_DTYPE: DTypeError,
  ERR_UNSUPPORTED: UnsupportedError,
  ERR_CHECKPOINT: CheckpointError,
  ERR_IMAGE: ImageError,
  ERR_DEVICE: DeviceError,
  ERR_OUT_OF_MEMORY: OutOfMemoryError,
  ERR_DISPOSED: DisposedError,
}

function translate(cause: unknown, frames: string): unknown {
  const code = cause instanceof Error ? (cause as { code?: unknown }).code : undefined
  if (typeof code !== 'string' || cause instanceof ChiasmaError) return cause
  const { message } = cause as Error
  const Class = classes[code]
  const error = Class ? new Class(message, { cause }) : new ChiasmaError(code, message, { cause })
  error.stack = `${error.name}: ${message}\n${frames}`
  return error
}

/**
 * Calls into the addon: `native((addon) => addon.listDevices())`. What it throws, or its promise rejects with, is one of the error
 * family and points at the caller of the function that called `native`.
 *
 * @param within the public function whose caller the stack starts at; default: the caller of `native`
 * @throws DeviceError if the addon cannot be loaded on this platform
 */
export function native<T>(call: (addon: Addon) => T, within: Function = native): T {
  const here: { stack?: string } = {}
  Error.captureStackTrace(here, within)
  const frames = () => here.stack!.split('\n').slice(1).join('\n')
  try {
    const result = call(load())
    if (!(result instanceof Promise)) return result
    return result.catch((error: unknown) => {
      throw translate(error, frames())
    }) as T
  } catch (error) {
    throw translate(error, frames())
  }
}

/**
 * Runs native work that a signal may stop. Rejects with `signal.reason` as soon as it aborts, without waiting for the native side to
 * notice; a result that still comes is given to `discard`.
 *
 * @param toTheEnd asked when it aborts: whether to reject only when the native side has ended, as for work that reads the caller's memory
 */
export function abortable<T>(
  signal: AbortSignal | undefined,
  start: (task: NativeTask | undefined) => Promise<T>,
  discard?: (late: T) => void,
  toTheEnd = () => false,
): Promise<T> {
  if (!signal) return start(undefined)
  if (signal.aborted) return Promise.reject(signal.reason)
  return new Promise((resolve, reject) => {
    let stopped = false
    const task = native((addon) => addon.createTask())
    const stop = () => {
      stopped = true
      task.cancel()
      if (!toTheEnd()) reject(signal.reason)
    }
    signal.addEventListener('abort', stop, { once: true })
    void (async () => start(task))() // also turns what `start` throws into a rejection
      .then(
        (result) => (stopped ? discard?.(result) : resolve(result)),
        (error) => !stopped && reject(error),
      )
      .finally(() => {
        signal.removeEventListener('abort', stop)
        if (stopped) reject(signal.reason)
      })
  })
}
