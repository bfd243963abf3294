// Prints as JSON what devices there are, asked twice, and how opening each of the named ones ends. NAME=VALUE among them sets a variable of the
// environment from there on; a name with a + behind it stays open.
import { Device, listDevices } from '../../dist/core/device.js'

const opened = {}
const devices = await listDevices()
const kept = []
for (const argument of process.argv.slice(2)) {
  const [variable, value] = argument.split('=')
  if (value !== undefined) {
    process.env[variable] = value
    continue
  }
  const name = argument.replace('+', '')
  try {
    const device = await Device.open({ device: name })
    opened[name] = { id: device.id, dtype: device.dtype, isa: device.isa }
    if (argument === name) await device.dispose()
    else kept.push(device)
  } catch ({ name: error, message }) {
    opened[name] = { error, message }
  }
}
process.stdout.write(JSON.stringify({ devices, again: await listDevices(), opened }))
for (const device of kept) await device.dispose()
