// chiasma doctor: what this machine offers, and why a device is not used.

import type { Command } from 'commander'
import { listDevices } from '../core/device.js'
import { packageVersion, print } from './console.js'

export function define(command: Command): void {
  command
    .option('--json', 'print the same as JSON')
    .action(run)
}

async function run({ json }: { json?: boolean }): Promise<void> {
  const devices = await listDevices()
  const version = packageVersion()
  const { platform, arch, version: node } = process
  if (json) {
    await print(JSON.stringify({ chiasma: version, node, platform, arch, devices }, undefined, 2))
    return
  }
  await print(`chiasma ${version}, Node ${node}, ${platform}-${arch}`)
  for (const { id, name, available, reason, memory, isa, computeCapability } of devices) {
    const details = [
      isa && `instruction sets ${isa.join(', ')}`,
      computeCapability && `compute capability ${computeCapability}`,
      memory.total > 0 && `${gibibytes(memory.total)} memory${memory.free === 0 ? '' : `, ${gibibytes(memory.free)} free`}`,
    ].filter(Boolean)
    await print(`${id}: ${name}${available ? '' : ` - not usable: ${reason}`}`)
    if (details.length) await print(`  ${details.join('; ')}`)
  }
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}
