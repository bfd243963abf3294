// The comparison with other libraries: `npm run bench:peers -- --shared DIR`. DIR holds what both sides load: tools/make_clip_checkpoint.py
// and export_minilm_onnx.py, models/all-minilm-l6-v2, tokenizers/clip, data/photos and data/sts; CHIASMA_SHARED names it too. Everything else,
// the peers included, goes into bench/.peers. Results are merged into bench/results/DATE-MACHINE.json, from which the .md is made.

import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { stages } from './peers/lines.mjs'
import { machine, Results, summary, table } from './peers/report.mjs'
import { folder, install, measurePeak, prepare } from './peers/setup.mjs'
import { processStages } from './peers/start.mjs'
import { takeTurns } from './peers/turns.mjs'

const usage = `npm run bench:peers -- [--shared DIR] [--only NAMES] [--rounds N] [--seconds N] [--photos N] [--quick] [--list]
  --only    sections (image, text, folder, start, search) or single stages, with commas between
  --rounds  rounds that the contenders take turns in, default 7
  --seconds that a turn takes about, default 0.6
  --photos  photos of the run whose memory is measured, default 10000
  --quick   3 rounds of shorter turns on less data, written nowhere
  --list    prints the names of the stages`

const options = {
  shared: { type: 'string', default: process.env.CHIASMA_SHARED },
  only: { type: 'string' },
  rounds: { type: 'string', default: '7' },
  seconds: { type: 'string', default: '0.6' },
  photos: { type: 'string', default: '10000' },
  quick: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  setup: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
}

async function main() {
  const { values } = parseArgs({ options })
  if (values.help || !values.shared) {
    console.log(usage)
    process.exitCode = values.help ? 0 : 2
    return
  }
  const data = join(folder, 'data')
  mkdirSync(data, { recursive: true })
  const missing = install()
  const models = prepare(values.shared)
  if (values.setup) return
  const here = await machine()
  const context = { shared: values.shared, models, data, threads: availableParallelism(), quick: values.quick, photos: Number(values.photos), amx: here.amx }
  const all = [...stages(context), ...processStages(context)]
  const only = values.only?.split(',')
  const chosen = all.filter(({ name, section }) => !only || only.some(wanted => wanted === section || name.startsWith(wanted)))
  if (values.list || chosen.length === 0) {
    console.log(all.map(({ section, name }) => `${section}: ${name}`).join('\n'))
    process.exitCode = values.list ? 0 : 2
    return
  }
  const results = values.quick ? undefined : new Results(here)
  const turns = { rounds: values.quick ? 3 : Number(values.rounds), seconds: values.quick ? 0.2 : Number(values.seconds), missing }
  for (const stage of chosen) {
    console.error(`${stage.name}: ${stage.title}`)
    const before = measurePeak(51, 102, 205)
    const contenders = stage.run ? await stage.run(turns) : await takeTurns(stage.contenders, turns)
    const peaks = [before, measurePeak(51, 102, 205)]
    const line = summary(stage, contenders, peaks, results?.peaks())
    console.log(`${table(line)}\n`)
    results?.add(line)
    if (line.disagreements.length > 0) process.exitCode = 1
  }
  if (results) console.error(`written to ${results.file}`)
}

await main()
