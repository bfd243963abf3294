#!/usr/bin/env node
// Stands in for node-gyp under prebuildify: whatever it is asked, it builds the addon with CMake.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const script = join(dirname(fileURLToPath(import.meta.url)), 'build-addon.mjs')
process.exit(spawnSync(process.execPath, [script], { stdio: 'inherit' }).status ?? 1)
