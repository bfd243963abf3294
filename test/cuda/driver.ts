// Which GPUs are found and why one cannot be used, with a stand-in for the driver's libraries; and, with the simulator in the CUDA library's place,
// that 'auto', 'cuda' and 'cuda:N' choose among them.

import { execFileSync, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type DeviceInfo, listDevices } from '../../lib/core/device.js'
import { buildDist, startCli } from '../support/cli.js'
import { noSimulator } from '../support/simulator.js'

const support = join(dirname(dirname(fileURLToPath(import.meta.url))), 'support')
const root = dirname(dirname(support))
const driver = join(t.testdir(), 'driver')
mkdirSync(driver)
execFileSync('cc', ['-shared', '-fPIC', '-w', '-o', join(driver, 'libcuda.so.1'), join(support, 'fake-driver.c')])
symlinkSync('libcuda.so.1', join(driver, 'libnvidia-ml.so.1'))
buildDist()

interface Answer {
  devices: DeviceInfo[]
  again: DeviceInfo[]
  opened: Record<string, { id?: string; dtype?: string; isa?: string; error?: string; message?: string }>
}

async function ask(env: Record<string, string>, ...open: string[]): Promise<Answer> {
  const child = spawn(process.execPath, [join(support, 'devices.mjs'), ...open], { env: { ...process.env, NODE_OPTIONS: '', ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', chunk => (text += chunk))
  const code = await new Promise(resolve => child.on('close', resolve))
  if (code !== 0) throw new Error(`ended with ${code}`)
  return JSON.parse(text) as Answer
}

const gpus = ({ devices }: Answer) => devices.filter(({ kind }) => kind === 'cuda')
const withDriver = { LD_LIBRARY_PATH: driver }
const GiB = 2 ** 30
const hasGpu = (await listDevices()).some(({ id }) => id === 'cuda:0') && 'this machine has a GPU'

t.test('without a driver', { skip: hasGpu }, async t => {
  const answer = await ask({}, 'cuda', 'cuda:1', 'gpu', 'auto')
  t.match(gpus(answer), [{ id: 'cuda', available: false, reason: 'there is no NVIDIA driver (libcuda.so.1 cannot be opened)' }])
  for (const name of ['cuda', 'cuda:1', 'gpu']) {
    t.match(answer.opened[name], { error: 'DeviceError', message: /^\[device\] '(cuda|cuda:1|gpu)' cannot be used: there is no NVIDIA driver .*; this machine has cpu / })
  }
  t.match(answer.opened['auto'], { id: 'cpu' })
})

t.test('why there is no GPU to use', { skip: hasGpu }, async t => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ FAKE_CUDA: '12080', FAKE_GPUS: '90' }, /^the NVIDIA driver supports CUDA 12\.8; expected 13\.0 or later \(driver R580 or later\)$/],
    [{}, /^the NVIDIA driver finds no GPU$/],
    [{ FAKE_INIT: '100' }, /^the NVIDIA driver finds no GPU$/],
    [{ FAKE_INIT: '2' }, /^out of memory: the NVIDIA driver cannot start$/],
    [{ FAKE_INIT: '803' }, /^the NVIDIA driver cannot start: error 803$/],
  ]
  for (const [env, reason] of cases) {
    const answer = await ask({ ...withDriver, ...env }, 'cuda', 'auto')
    t.match(gpus(answer), [{ id: 'cuda', available: false, reason }])
    t.same(gpus({ ...answer, devices: answer.again }), gpus(answer))
    t.match(answer.opened, { cuda: { error: 'DeviceError' }, auto: { id: 'cpu' } })
  }
})

t.test('a driver that had no memory to start is asked again', { skip: hasGpu }, async t => {
  const answer = await ask({ ...withDriver, FAKE_INIT: '2', FAKE_GPUS: '90' }, 'cuda', 'FAKE_INIT=0')
  t.match(gpus(answer), [{ id: 'cuda', available: false, reason: /^out of memory/ }])
  t.match(answer.opened, { cuda: { error: 'DeviceError', message: /out of memory/ } })
  t.match(gpus({ ...answer, devices: answer.again }), [{ id: 'cuda:0', computeCapability: '9.0' }])
})

t.test('doctor', { skip: hasGpu }, async t => {
  const { stdout } = await startCli(['doctor'], { ...withDriver, FAKE_GPUS: '75', FAKE_FREE: String(20 * GiB) }).result
  t.match(stdout, /cuda:0: Fake GPU 0 - not usable: its compute capability is 7\.5; expected 8\.0 or later\n {2}compute capability 7\.5; 24\.0 GiB memory, 20\.0 GiB free/)
})

t.test('GPUs, with the simulator as the CUDA library', { skip: hasGpu || noSimulator }, async t => {
  const folder = t.testdir({ build: { Release: {} } })
  copyFileSync(join(root, 'build/Release/chiasma.node'), join(folder, 'build/Release/chiasma.node'))
  const env = { ...withDriver, CHIASMA_PREBUILD: folder, CHIASMA_SIM_DEVICES: '2', FAKE_GPUS: '86 80 75' }
  const none = await ask(env, 'cuda', 'cuda:2', 'auto')
  t.match(gpus(none)[0], { id: 'cuda:0', available: false, reason: /has no CUDA library/ })
  t.match(none.opened, { cuda: { message: /build:cuda/ }, 'cuda:2': { message: /capability is 7\.5/ }, auto: { id: 'cpu' } })

  copyFileSync(join(root, 'build/sim/libchiasma_cuda_sim.so'), join(folder, 'build/Release/libchiasma_cuda.so'))
  const answer = await ask(env, 'auto', 'cuda', 'gpu', 'cuda:1', 'cuda:2', 'cuda:7')
  t.match(gpus(answer), [
    { id: 'cuda:0', name: 'Fake GPU 0', available: true, computeCapability: '8.6', memory: { total: 24 * GiB, free: 0 } },
    { id: 'cuda:1', available: true, computeCapability: '8.0' },
    { id: 'cuda:2', available: false, reason: 'its compute capability is 7.5; expected 8.0 or later' },
  ])
  for (const name of ['auto', 'cuda', 'gpu']) t.same(answer.opened[name], { id: 'cuda:0', dtype: 'bf16', isa: 'sm_86' }, name)
  t.same(answer.opened['cuda:1'], { id: 'cuda:1', dtype: 'bf16', isa: 'sm_80' })
  t.match(answer.opened['cuda:2'], { error: 'DeviceError', message: /'cuda:2' cannot be used: its compute capability is 7\.5/ })
  t.match(answer.opened['cuda:7'], { error: 'DeviceError', message: /'cuda:7' is not there; this machine has cpu .*, cuda:0 \(Fake GPU 0\), cuda:1/ })

  const full = await ask({ ...env, FAKE_FREE: String(100 << 20) }, 'cuda', 'auto')
  t.match(gpus(full)[0], { available: false, memory: { free: 100 << 20 }, reason: 'out of memory: 100 MiB of its 24576 MiB are free; expected at least 512 MiB' })
  t.match(full.opened, { cuda: { error: 'DeviceError', message: /out of memory/ }, auto: { id: 'cpu' } })

  const own = await ask({ ...env, FAKE_FREE: String(20 * GiB) }, 'cuda:1+', `FAKE_FREE=${100 << 20}`, 'auto', 'cuda:0')
  t.match(own.again.filter(({ kind }) => kind === 'cuda'), [
    { id: 'cuda:0', available: false, reason: /out of memory/ },
    { id: 'cuda:1', available: true, memory: { free: 100 << 20 } },
    { id: 'cuda:2', available: false },
  ])
  t.match(own.opened, { auto: { id: 'cuda:1' }, 'cuda:0': { error: 'DeviceError', message: /out of memory/ } }, 'what this process fills is no reason to leave it')
})
