#!/usr/bin/env node
// The command line. Results on stdout, messages on stderr; exit code 0 on success, 2 on wrong usage, 1 on any other failure. Only the command
// that is asked for is loaded, so that help and `doctor` answer at once.

import { Command, CommanderError } from 'commander'
import { ChiasmaError } from '../core/errors.js'
import { packageVersion, say, stopStatus, watchOutput } from './console.js'

const commands: Readonly<Record<string, { description: string; load: () => Promise<{ define(command: Command): void }> }>> = {
  embed: {
    description: 'embed images, sounds, or the lines of a text file, into FILE; run again after an interruption, it goes on',
    load: () => import('./embed.js'),
  },
  search: {
    description: 'list the items of an embedding file that are nearest to a text, an image or a sound, by cosine similarity',
    load: () => import('./search.js'),
  },
  classify: {
    description: "classify images: zero-shot into --labels with a dual encoder, else into the checkpoint's own labels",
    load: () => import('./classify.js'),
  },
  match: {
    description: 'score images with texts: by a model that looks at both together, or by the cosine of embeddings',
    load: () => import('./match.js'),
  },
  retrieve: {
    description: 'measure retrieval of images by texts and of texts by images, as Recall@K, on a file of pairs',
    load: () => import('./retrieve.js'),
  },
  doctor: {
    description: 'list devices and instruction sets, and say why a device is not used',
    load: () => import('./doctor.js'),
  },
  convert: {
    description: 'write the safetensors of a checkpoint in .bin or .pt files; nothing in them is executed',
    load: () => import('./convert.js'),
  },
  bench: {
    description: "measure this machine: arithmetic, memory, the kernels of a transformer, and a model's images or texts a second",
    load: () => import('./bench.js'),
  },
  demo: {
    description: 'embed a folder of images or a file of texts, list the nearest of one of them, and say how fast it was',
    load: () => import('./demo.js'),
  },
}

async function run(args: readonly string[]): Promise<void> {
  const program = new Command('chiasma')
    .description('Embeds images, texts and sounds with Hugging Face checkpoints.')
    .version(packageVersion())
    .exitOverride()
    .showHelpAfterError('(add --help for the options)')
  for (const [name, { description, load }] of Object.entries(commands)) {
    const command = program.command(name).description(description)
    // `chiasma NAME …` or `chiasma help NAME`
    if (args.slice(0, 2).includes(name)) (await load()).define(command)
  }
  await program.parseAsync(args, { from: 'user' })
}

watchOutput()
run(process.argv.slice(2)).catch((error: unknown) => {
  stopStatus()
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
