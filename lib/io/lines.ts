// Lines of files. Not by node:readline, whose lines also end at U+2028 from Node 24 on, which JSON leaves in its strings as it is.

/** The lines of a stream, as they stand, with the '\n' that ends each but perhaps the last. */
export async function* rawLinesOf(input: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  let begun: Uint8Array[] = [] // of a line that goes on
  for await (const chunk of input) {
    let from = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      yield Buffer.concat([...begun, chunk.subarray(from, end + 1)])
      begun = []
      from = end + 1
    }
    if (from < chunk.length) begun.push(chunk.subarray(from))
  }
  if (begun.length) yield Buffer.concat(begun)
}

/** The lines of a stream of UTF-8, without their ends ('\n' or '\r\n') and the mark that some editors put before the first. */
export async function* linesOf(input: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  let first = true
  for await (const raw of rawLinesOf(input)) {
    const line = raw.toString('utf8').replace(/\r?\n$/, '')
    yield first ? line.replace(/^\ufeff/, '') : line
    first = false
  }
}

const NEWLINE = 0x0a
