// Sound at another rate: each new sample is the sum of the old ones around it, weighted by a sinc under a Hann window (band-limited
// interpolation; Smith and Gossett 1984). The sinc cuts at 0.99 of the lower rate's band and has 6 zero crossings to either side, which is
// torchaudio's default; samples beyond the ends are zeros.

import { setImmediate } from 'node:timers/promises'

const CROSSINGS = 6
const ROLLOFF = 0.99
/** Milliseconds before others get a turn. */
const SLICE = 4
/** New samples between looks at the clock. */
const SAMPLES_AT_ONCE = 64
/** Weights that are kept, in numbers: 32 MiB. */
const WEIGHTS_KEPT = 4 * 1024 * 1024

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b)
}

/** ⌈n · to / from⌉ samples. @param from, to samples a second, positive integers */
export async function resample(samples: Float32Array, from: number, to: number, signal?: AbortSignal): Promise<Float32Array> {
  if (from === to) return samples
  const divisor = greatestCommonDivisor(from, to)
  const [old, fresh] = [from / divisor, to / divisor]
  const cut = Math.min(old, fresh) * ROLLOFF
  const reach = Math.ceil((CROSSINGS * old) / cut) // in old samples, to either side
  const result = new Float32Array(Math.ceil((samples.length * fresh) / old))
  // New sample i lies at i · old / fresh: every `fresh` of them the weights come again.
  const phases = new Map<number, Float64Array>()
  const weightsOf = (phase: number): Float64Array => {
    const known = phases.get(phase)
    if (known) return known
    const fraction = ((phase * old) % fresh) / fresh
    const weights = Float64Array.from({ length: 2 * reach + 1 }, (_, k) => {
      const t = ((k - reach - fraction) / old) * cut
      if (Math.abs(t) >= CROSSINGS) return 0
      const window = Math.cos((t * Math.PI) / CROSSINGS / 2) ** 2
      return ((t === 0 ? 1 : Math.sin(Math.PI * t) / (Math.PI * t)) * window * cut) / old
    })
    if ((phases.size + 1) * weights.length <= WEIGHTS_KEPT) phases.set(phase, weights)
    return weights
  }
  signal?.throwIfAborted()
  let started = performance.now()
  for (let i = 0; i < result.length; i++) {
    // By the clock: weights that are made take many times as long as those that are kept.
    if (i % SAMPLES_AT_ONCE === 0 && performance.now() - started >= SLICE) {
      await setImmediate()
      signal?.throwIfAborted()
      started = performance.now()
    }
    const weights = weightsOf(i % fresh)
    const first = Math.floor((i * old) / fresh) - reach
    const [begin, end] = [Math.max(0, -first), Math.min(weights.length, samples.length - first)]
    let sum = 0
    for (let k = begin; k < end; k++) sum += samples[first + k]! * weights[k]!
    result[i] = sum
  }
  return result
}
