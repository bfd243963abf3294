// What the tests of the CUDA device share: the simulator, which `npm run build:sim` builds, and settings of it.

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const library = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'build/sim/libchiasma_cuda_sim.so')

/** The reason tests give when they skip for lack of it. */
export const noSimulator = existsSync(library) ? false : 'the simulator is not built: npm run build:sim'

/** Sets the simulator's variables (native/cuda/sim/options.h), which it reads when its device is first asked for: once in a process. */
export function simulate(options: { memory?: number; devices?: number; fail?: number; seed?: number }): void {
  for (const [name, value] of Object.entries(options)) process.env[`CHIASMA_SIM_${name.toUpperCase()}`] = String(value)
}
