#!/usr/bin/env node
// The command line. Results on stdout, messages on stderr; exit code 0 on success, 2 on wrong usage, 1 on any other failure.

import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { ChiasmaError } from '../core/errors.js'
import { addClassify } from './classify.js'
import { endQuietlyWhenStdoutCloses, say } from './console.js'
import { addConvert } from './convert.js'
import { addDemo } from './demo.js'
import { addDoctor } from './doctor.js'
import { addEmbed } from './embed.js'
import { addSearch } from './search.js'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

const program = new Command('chiasma')
  .description('Embeds images and texts with Hugging Face checkpoints.')
  .version(version)
  .exitOverride()
  .showHelpAfterError('(add --help for the options)')
for (const add of [addDoctor, addEmbed, addSearch, addClassify, addConvert, addDemo]) add(program)

endQuietlyWhenStdoutCloses()
program.parseAsync().catch((error: unknown) => {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
  } else if (error instanceof ChiasmaError) {
    say(`chiasma: ${error.message}`)
    process.exitCode = error.code === 'ERR_USAGE' ? 2 : 1
  } else {
    say(process.env['CHIASMA_DEBUG'] ? `chiasma: ${(error as Error).stack}` : `chiasma: ${(error as Error).message ?? error}`)
    process.exitCode = 1
  }
})
