// From rates to a table: medians, spreads, ratios, shares of the measured peak, and whether the results agree.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { median } from './turns.mjs'

const folder = fileURLToPath(new URL('../results', import.meta.url))
/** What f32 embeddings of different libraries must have in common; of the other dtypes it is reported. */
const COSINE = 0.999
/** Of the nearest rows, in f32. */
const OVERLAP = 0.999

/** The machine in words, and whether it has tiles. */
export async function machine() {
  const { listDevices } = await import('../../dist/index.js')
  const cpu = (await listDevices()).find(({ kind }) => kind === 'cpu')
  const flags = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
  const known = ['avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8'].filter(flag => flags.includes(` ${flag}`))
  return {
    name: cpus()[0].model,
    cores: cpu.threads,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    features: known,
    amx: known.includes('amx_bf16'),
    isa: cpu.isa,
    system: `Linux ${release()}, Node ${process.version}`,
  }
}

function commit() {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8', cwd: fileURLToPath(new URL('../..', import.meta.url)) }).trim()
  } catch {
    return 'unknown'
  }
}

/** Lowest cosine of two sets of rows. */
function cosine(a, b) {
  let lowest = 1
  for (let row = 0; row < a.rows; row++) {
    let [dot, aa, bb] = [0, 0, 0]
    for (let i = row * a.columns; i < (row + 1) * a.columns; i++) {
      dot += a.data[i] * b.data[i]
      aa += a.data[i] ** 2
      bb += b.data[i] ** 2
    }
    const value = dot / Math.sqrt(aa * bb)
    if (!(value >= lowest)) lowest = value
  }
  return lowest
}

/** The share of `a`'s indices that `b` has, over all rows. */
function overlap(a, b) {
  let common = 0
  for (let row = 0; row < a.rows; row++) {
    const found = new Set(b.data.subarray(row * b.columns, (row + 1) * b.columns))
    for (const index of a.data.subarray(row * a.columns, (row + 1) * a.columns)) if (found.has(index)) common++
  }
  return common / (a.rows * a.columns)
}

/** The most that this kind of arithmetic, or of reading, was seen to do. */
function peakOf(stage, { dtype, vectors }, peaks) {
  const best = pick => Math.max(...peaks.map(pick).map(value => value ?? 0))
  if (stage.bytes) return best(({ read }) => read[Math.round(stage.bytes / 1e6)])
  // bf16 may be computed by float32's multiply-adds too, which are twice as many on some processors.
  const plain = Math.max(best(peak => peak[dtype]), dtype === 'bf16' ? best(peak => peak.f32) : 0)
  return Math.max(plain, vectors ? 0 : best(peak => peak[`${dtype}_amx`]))
}

const nameOf = ({ name, dtype }) => `${name} ${dtype}`

/**
 * What is known of a stage, for the table and the file.
 * @param peaks measured before and after it
 * @param others those of stages before: a busy machine shows its peak only now and then, and the best is the truest
 */
export function summary(stage, contenders, peaks, others = []) {
  const measured = contenders.filter(({ missing }) => !missing)
  const reference = measured.find(one => nameOf(one) === stage.reference)
  const disagreements = []
  const rows = contenders.map(one => {
    const { name, dtype, version, missing } = one
    if (missing) return { name, dtype, missing }
    const rate = median(one.rates)
    const work = stage.bytes ?? one.operations ?? stage.operations
    const peak = work && !(stage.bytes && dtype !== 'f32' && nameOf(one) === stage.reference) ? peakOf(stage, one, [...peaks, ...others]) : 0
    const agreement = reference?.outputs && one.outputs && (stage.indices ? overlap : cosine)(reference.outputs, one.outputs)
    if (dtype === 'f32' && agreement !== undefined && !(agreement >= (stage.indices ? OVERLAP : (stage.leastCosine ?? COSINE)))) disagreements.push(`${name}: ${agreement}`)
    return {
      name,
      dtype,
      version,
      own: one.own,
      rate,
      lowest: Math.min(...one.rates),
      highest: Math.max(...one.rates),
      rounds: one.rates.length,
      cores: one.cores.length ? median(one.cores) : undefined,
      share: peak > 0 ? (rate * work) / 1e9 / peak : undefined,
      agreement,
      rates: one.rates,
    }
  })
  const ratio = (mine, theirs) => median(mine.rates.map((rate, i) => rate / theirs.rates[i]))
  const ratios = []
  for (const mine of rows.filter(({ own, missing }) => own && !missing)) {
    const without = /without AMX/.test(mine.name)
    const fair = rows.filter(row => !row.own && !row.missing && row.dtype === mine.dtype && /without AMX/.test(row.name) === without)
    const best = fair.sort((a, b) => b.rate - a.rate)[0]
    if (best) ratios.push({ of: nameOf(mine), to: nameOf(best), ratio: ratio(mine, best) })
    const given = rows.find(row => nameOf(row) === stage.reference && !row.missing)
    if (given && given !== best && !without) ratios.push({ of: nameOf(mine), to: stage.reference, ratio: ratio(mine, given) })
  }
  if (stage.parts) {
    const [whole, decode, tower] = rows
    const bound = whole.rates.map((_, i) => 1 / (1 / tower.rates[i] + 1 / decode.rates[i]))
    ratios.push({ of: nameOf(whole), to: '1 / (1/tower + 1/decoding)', ratio: median(whole.rates.map((rate, i) => rate / bound[i])) })
  }
  const { name, section, title, unit, notes } = stage
  return { name, section, title, unit, notes, rows, ratios, disagreements, peaks, commit: commit(), date: new Date().toISOString() }
}

const number = value => (value >= 100 ? Math.round(value).toLocaleString('en-US') : value >= 10 ? value.toFixed(1) : value.toFixed(2))
const percent = value => (value === undefined ? '' : `${Math.round(value * 100)}%`)

/** A stage as Markdown. */
export function table({ title, unit, rows, ratios, disagreements, notes }) {
  const lines = [`**${title}**`, '', `| | dtype | ${unit}, median | lowest – highest | cores busy | of peak | agreement |`, '| --- | --- | ---: | ---: | ---: | ---: | ---: |']
  for (const row of rows) {
    if (row.missing) lines.push(`| ${row.name} | ${row.dtype} | missing: ${row.missing.replace(/\s+/g, ' ').replaceAll('|', '/').slice(0, 160)} | | | | |`)
    else {
      const agreement = row.agreement === undefined ? '' : row.agreement.toFixed(4)
      const label = `${row.own ? `**${row.name}**` : row.name}${row.version ? ` ${row.version}` : ''}`
      lines.push(`| ${label} | ${row.dtype} | ${number(row.rate)} | ${number(row.lowest)} – ${number(row.highest)} | ${row.cores?.toFixed(2) ?? ''} | ${percent(row.share)} | ${agreement} |`)
    }
  }
  lines.push('', ...ratios.map(({ of, to, ratio }) => `- ${of}: ${ratio.toFixed(2)} × ${to}`), ...(notes ?? []).map(note => `- ${note}`))
  for (const disagreement of disagreements) lines.push(`- DISAGREES with the reference: ${disagreement}`)
  return lines.join('\n')
}

/** One file for a machine and day; a stage that is measured again replaces what was there. */
export class Results {
  constructor(here) {
    mkdirSync(folder, { recursive: true })
    const label = here.name.replace(/\((R|TM)\)|CPU|Processor|@.*/gi, '').trim().replace(/[^A-Za-z0-9]+/g, '-').replace(/^-|-$/g, '').toLowerCase()
    const name = `${new Date().toISOString().slice(0, 10)}-${label}${here.amx ? '-amx' : ''}-${here.cores}-cores`
    this.file = `${folder}/${name}.json`
    this.here = here
    this.lines = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')).lines : []
  }

  peaks() {
    return this.lines.flatMap(({ peaks }) => peaks)
  }

  add(line) {
    this.lines = [...this.lines.filter(({ name }) => name !== line.name), line]
    writeFileSync(this.file, `${JSON.stringify({ machine: this.here, lines: this.lines }, (key, value) => (typeof value === 'number' ? Number(value.toPrecision(6)) : value), 1)}\n`)
    writeFileSync(this.file.replace(/json$/, 'md'), `${this.markdown()}\n`)
  }

  markdown() {
    const { name, cores, memory, features, system } = this.here
    const best = kind => Math.max(...this.peaks().map(peak => peak[kind] ?? 0))
    const kinds = ['f32', 'bf16', 'int8', 'bf16_amx', 'int8_amx'].filter(kind => best(kind) > 0)
    const peaks = kinds.map(kind => `${kind.replace('_amx', ' with AMX')} ${Math.round(best(kind)).toLocaleString('en-US')}`).join(', ')
    return [
      `# chiasma beside its peers: ${name}, ${cores} cores`,
      '',
      `${memory} of memory; ${features.join(', ')}; ${system}. Measured peaks in G operations a second, the best of all stages: ${peaks}.`,
      '"Of peak" is the share of the best peak measured until then, beside this stage and those before. "Agreement" is the lowest cosine with the f32 reference, or the share of its nearest rows found.',
      '"Cores busy" is what a contender got of the machine: fewer than it can use means that something else ran. Contenders took turns; a ratio is the median of the rounds\' ratios. Repeat it with `npm run bench:peers`.',
      '',
      ...['image', 'text', 'folder', 'start', 'search'].flatMap(section => {
        const lines = this.lines.filter(line => line.section === section)
        return lines.length ? [`## ${section}`, '', ...lines.flatMap(line => [table(line), ''])] : []
      }),
    ].join('\n').trimEnd()
  }
}
