// A kernel that ends in an illegal address, as the simulator is told to let one do: the device is lost, and everything says so; nothing else suffers.

import t from 'tap'
import { compile } from '../../lib/core/compile.js'
import { Device } from '../../lib/core/device.js'
import { Tensor } from '../../lib/core/tensor.js'
import { unary } from '../../lib/ops/index.js'
import { noSimulator, simulate } from '../support/simulator.js'

simulate({ devices: 2, fail: 5 })

const negatedTwice = (device: Device) =>
  compile(({ x }) => ({ y: unary(unary(x!, 'neg'), 'neg') }), { x: { shape: [4], dtype: 'float32' } }, device)
const x = new Tensor('float32', Float32Array.of(1, 2, 3, 4), [4])

t.test('on the simulator', { skip: noSimulator }, async t => {
  const device = await Device.open({ device: 'cuda-sim', dtype: 'f32' })
  const beside = await Device.open({ device: 'cuda-sim', dtype: 'f32' })
  await using other = await Device.open({ device: 'cuda-sim:1', dtype: 'f32' })
  const program = negatedTwice(device)
  t.same((await program.run({ x })).y!.data, x.data)
  t.same((await program.run({ x })).y!.data, x.data, 'captured')
  const [replayed, queued] = await Promise.allSettled([program.run({ x }), program.run({ x })]) // the fifth kernel
  t.match(replayed, { status: 'rejected', reason: { name: 'DeviceError', message: /cuda-sim:0: .*cudaErrorIllegalAddress.*kernel .*unary_kernel/s } })
  const lost = { name: 'DeviceError', message: /cuda-sim:0 is lost \(.*cudaErrorIllegalAddress.*\); it works again in a new process/ }
  t.match(queued, { status: 'rejected', reason: lost })
  await t.rejects(program.run({ x }), lost)
  await t.rejects(device.loadWeights([{ parameter: { name: 'w', shape: [4], dtype: 'float32', role: 'plain' }, source: x }]), lost)

  // Whoever else has this GPU finds it lost as well; the other GPU and the CPU are not.
  await t.rejects(negatedTwice(beside).run({ x }), { name: 'DeviceError', message: /cudaErrorIllegalAddress/ })
  await t.rejects(negatedTwice(beside).run({ x }), lost)
  t.same((await negatedTwice(other).run({ x })).y!.data, x.data)
  await using cpu = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.same((await negatedTwice(cpu).run({ x })).y!.data, x.data)

  await Promise.all([device.dispose(), beside.dispose()])
  t.same(device.memoryUsage(), { weights: 0, arena: 0, total: 0 })
})
