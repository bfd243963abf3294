// A folder through chiasma, in a process of its own: MODEL FOLDER. Says the peak and the size after each tenth, in MB.
import { readFileSync } from 'node:fs'
import { Embedder } from '../../dist/index.js'
import { photos } from './data.mjs'

const [model, folder] = process.argv.slice(2)
const embedder = await Embedder.fromPretrained(model, { device: 'cpu' })
const files = photos(folder)
const sizes = []
const began = performance.now()
const cpu = process.cpuUsage()
for await (const { index, error } of embedder.embedStream(files)) {
  if (error) throw error
  if ((index + 1) % Math.ceil(files.length / 10) === 0) sizes.push(process.memoryUsage.rss() / 1e6)
}
const seconds = (performance.now() - began) / 1000
const { user, system } = process.cpuUsage(cpu)
const peak = (Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024) / 1e6
console.log(JSON.stringify({ peak, sizes, rate: files.length / seconds, cores: (user + system) / 1e6 / seconds, dtype: embedder.dtype }))
