// Prints as JSON what devices there are, asked twice, and how opening each of the named ones ends.
import { Device, listDevices } from '../../dist/core/device.js'

const opened = {}
const devices = await listDevices()
for (const name of process.argv.slice(2)) {
  try {
    const device = await Device.open({ device: name })
    opened[name] = { id: device.id, dtype: device.dtype, isa: device.isa }
    await device.dispose()
  } catch ({ name: error, message }) {
    opened[name] = { error, message }
  }
}
process.stdout.write(JSON.stringify({ devices, again: await listDevices(), opened }))
