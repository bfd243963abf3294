// Ways a process ends while native work is running; the first argument names one. The parent checks exit code, time and signal.
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'

const scene = isMainThread ? process.argv[2] : workerData.scene
const native = () => import('../bridge.mjs')
const say = (text) => (isMainThread ? process.stdout.write(`${text}\n`) : parentPort.postMessage(text))
const started = async (steps = 2000) => {
  const { slowProgram, ramp } = await native()
  const parts = await slowProgram(steps)
  const run = parts.program.run([ramp(256)], [256])
  await sleep(50)
  return { ...parts, run }
}

const worker = (workerScene) => new Worker(new URL(import.meta.url), { workerData: { scene: workerScene } })
const message = (of) => new Promise((resolve, reject) => of.once('message', resolve).once('error', reject))
const ended = (of) => new Promise((resolve) => of.once('exit', resolve))

const scenes = {
  async 'never-disposes'() {
    const { slowProgram, ramp, same } = await native()
    const { program } = await slowProgram(3)
    const [result] = await program.run([ramp(2)], [2])
    say(same(result, ramp(2)) ? 'right' : 'wrong')
  },
  async 'waits-for-runs'() {
    // Nothing but the pending run keeps the process alive.
    const { run } = await started(200)
    run.then(() => say('settled'))
  },
  async 'process-exit'() {
    await started()
    process.exit(7)
  },
  async 'process-exit-at-once'() {
    const { slowProgram, ramp } = await native()
    const { program } = await slowProgram(2000)
    for (let i = 0; i < 20; ++i) program.run([ramp(256)], [256])
    process.exit(7)
  },
  async 'process-exit-while-loading'() {
    const { addon, identity } = await native()
    const device = addon.openDevice({ id: 'cpu' })
    device.loadWeights(Array.from({ length: 500 }, identity))
    await sleep(5)
    process.exit(7)
  },
  async uncaught() {
    await started()
    throw new Error('an uncaught one')
  },
  async 'terminate'() {
    const child = worker('busy')
    await message(child)
    const since = performance.now()
    await child.terminate()
    say(performance.now() - since < 2000 ? 'terminated' : 'late')
  },
  async 'terminate-many'() {
    // The main thread never loads the addon: the last worker to end unloads it, if anything does.
    for (let round = 0; round < 5; ++round) {
      const children = [worker('busy'), worker('busy'), worker('loading')]
      await Promise.all(children.map(message))
      await Promise.all(children.map((child) => child.terminate()))
    }
    say('terminated')
  },
  async 'terminate-beside'() {
    // One worker ends while another and the main thread compute.
    const [child, other] = [worker('busy'), worker('right')]
    const right = message(other)
    await message(child)
    const { slowProgram, ramp, same } = await native()
    const { program } = await slowProgram(100)
    const run = program.run([ramp(256)], [256])
    await child.terminate()
    const [result] = await run
    say(same(result, ramp(256)) && (await right) === 'right' ? 'right' : 'wrong')
  },
  async 'worker-exits'() {
    const child = worker('leaves')
    say(`worker ended with ${await ended(child)}`)
  },
  // In workers:
  async busy() {
    await started()
    say('busy')
    setInterval(() => {}, 1000)
  },
  async loading() {
    const { addon, identity } = await native()
    const device = addon.openDevice({ id: 'cpu' })
    device.loadWeights(Array.from({ length: 500 }, identity), undefined, () => {})
    say('loading')
    setInterval(() => {}, 1000)
  },
  async right() {
    const { slowProgram, ramp, same } = await native()
    const { program, device } = await slowProgram(100)
    const results = await Promise.all([1, 2, 3].map((first) => program.run([ramp(200, first)], [200])))
    await device.dispose()
    say(results.every(([result], i) => same(result, ramp(200, i + 1))) ? 'right' : 'wrong')
  },
  async leaves() {
    await started()
    process.exit(3)
  },
}

await scenes[scene]()
