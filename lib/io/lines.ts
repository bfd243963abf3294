// Lines of files. Not by node:readline, whose lines also end at U+2028 from Node 24 on, which JSON leaves in its strings as it is.

const NEWLINE = 0x0a

/** The lines of a stream, as they stand, with the '\n' that ends each but perhaps the last; those that end in one chunk together. */
async function* linesTogether(input: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Buffer[], void, undefined> {
  let begun: Uint8Array[] = [] // of a line that goes on
  for await (const chunk of input) {
    const lines: Buffer[] = []
    let from = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      const line = Buffer.from(chunk.buffer, chunk.byteOffset + from, end + 1 - from)
      lines.push(begun.length ? Buffer.concat([...begun, line]) : line)
      if (begun.length) begun = []
      from = end + 1
    }
    if (from < chunk.length) begun.push(chunk.subarray(from))
    if (lines.length) yield lines
  }
  if (begun.length) yield [Buffer.concat(begun)]
}

/** The lines of a stream, as they stand, with the '\n' that ends each but perhaps the last. */
export async function* rawLinesOf(input: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  for await (const lines of linesTogether(input)) yield* lines
}

/** The lines of a stream of UTF-8, without their ends ('\n' or '\r\n') and the mark that some editors put before the first. */
export async function* linesOf(input: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  let first = true
  for await (const lines of linesTogether(input)) {
    for (const raw of lines) {
      let end = raw.length
      if (raw[end - 1] === NEWLINE) end -= raw[end - 2] === 0x0d ? 2 : 1
      const line = raw.toString('utf8', 0, end)
      yield first ? line.replace(/^\ufeff/, '') : line
      first = false
    }
  }
}
