// A process of its own that fetches a model: argv is the source and the options as JSON. Prints the result as its last line.

import { resolveSource } from '../../lib/io/hub.js'

const [source, options] = process.argv.slice(2)
const result = await resolveSource(source!, JSON.parse(options ?? '{}') as object)
process.stderr.write(`${JSON.stringify(result)}\n`)
