// Memory over time, in a process of its own with --expose-gc: prints what the parent checks, as JSON.
import { addon, identity, ramp, same, slowPlan } from '../bridge.mjs'

const settle = async () => {
  for (let i = 0; i < 5; ++i) {
    globalThis.gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
const resident = async () => {
  await settle()
  return process.memoryUsage.rss()
}

/** By how much so many rounds grow the process, the least of three times: a leak grows it each time, what the allocator keeps does not. */
const growth = async (rounds, once) => {
  const grown = []
  for (let time = 0; time < 3; ++time) {
    const before = await resident()
    for (let i = 0; i < rounds; ++i) await once()
    grown.push((await resident()) - before)
  }
  return { grown: Math.min(...grown) }
}

const scenes = {
  /** Everything made, used and disposed of, many times. */
  async disposed() {
    const once = async () => {
      const device = addon.openDevice({ id: 'cpu' })
      const weights = await device.loadWeights([identity(), identity(), identity()])
      const program = device.createProgram(slowPlan(3, 512), weights)
      const [result] = await program.run([ramp(512)], [512]) // half a MB in and out, 1 MB of arena
      if (!same(result, ramp(512))) throw new Error('wrong result')
      program.dispose()
      weights.dispose()
      await device.dispose()
    }
    for (let i = 0; i < 20; ++i) await once()
    return growth(60, once)
  },
  /** Nothing disposed of: the collector finds the handles. */
  async collected() {
    const device = addon.openDevice({ id: 'cpu' })
    const once = async () => {
      const weights = await device.loadWeights([identity()])
      await device.createProgram(slowPlan(2), weights).run([ramp(1)], [1])
      addon.createTask()
      addon.openDevice({ id: 'cpu' })
    }
    for (let i = 0; i < 50; ++i) await once()
    await settle()
    return device.memoryUsage()
  },
  /** Handles let go of while their work is under way. */
  async orphans() {
    const runs = []
    await (async () => {
      for (let i = 0; i < 10; ++i) {
        const device = addon.openDevice({ id: 'cpu' })
        const weights = await device.loadWeights([identity()])
        const program = device.createProgram(slowPlan(100), weights)
        runs.push(program.run([ramp(256, i)], [256], addon.createTask()))
      }
    })()
    let pending = runs.length
    for (const run of runs) run.finally(() => --pending)
    while (pending > 0) {
      globalThis.gc()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const results = await Promise.all(runs)
    return { right: results.every(([result], i) => same(result, ramp(256, i))) }
  },
  /** What the device says it has. */
  async accounted() {
    const device = addon.openDevice({ id: 'cpu' })
    const states = { start: device.memoryUsage() }
    const weights = await device.loadWeights(Array.from({ length: 32 }, identity)) // 8 MB
    states.loaded = device.memoryUsage()
    const program = device.createProgram(slowPlan(3, 8192), weights)
    await program.run([ramp(8192)], [8192])
    states.ran = device.memoryUsage()
    program.dispose()
    weights.dispose()
    await device.dispose()
    states.end = device.memoryUsage()
    return states
  },
  /** Weights let go of, and no call of the collector: it comes by itself only if it is told of memory outside its heap. */
  async pressure() {
    const device = addon.openDevice({ id: 'cpu' })
    const specs = Array(64).fill(identity()) // 16 MB
    let most = 0
    for (let i = 0; i < 60; ++i) {
      await device.loadWeights(specs)
      await new Promise(setImmediate)
      most = Math.max(most, device.memoryUsage().weights)
    }
    return { most }
  },
  /** Many runs at once, of many sizes, again and again: what is kept for their inputs is bounded. */
  async staged() {
    const device = addon.openDevice({ id: 'cpu' })
    const weights = await device.loadWeights([identity()])
    const program = device.createProgram(slowPlan(1, 4096), weights)
    const input = ramp(4096)
    const into = new Float32Array(4096 * 256)
    const once = async () => {
      const rows = Array.from({ length: 24 }, (_, i) => 1 + ((i * 997) % 4096))
      await Promise.all(rows.map((n) => program.run([input.subarray(0, n * 256)], [n], undefined, [into.subarray(0, n * 256)])))
    }
    for (let i = 0; i < 6; ++i) await once()
    const before = await resident()
    for (let i = 0; i < 12; ++i) await once()
    return { grown: (await resident()) - before }
  },
  /** Runs that fail, are cancelled or refused leave nothing behind. */
  async failed() {
    const device = addon.openDevice({ id: 'cpu' })
    const weights = await device.loadWeights([identity()])
    const program = device.createProgram(slowPlan(2, 512), weights)
    const once = async () => {
      const task = addon.createTask()
      const run = program.run([ramp(512)], [512], task)
      const queued = program.run([ramp(512)], [512], task)
      task.cancel()
      await Promise.allSettled([run, queued, program.run([ramp(1)], [512]), program.run([ramp(512)], [4000])])
      await device.loadWeights([{ ...identity(), shape: [3, 3] }]).catch(() => {})
    }
    for (let i = 0; i < 20; ++i) await once()
    return growth(80, once)
  },
}

console.log(JSON.stringify(await scenes[process.argv[2]]()))
