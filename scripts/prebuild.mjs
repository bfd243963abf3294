// Makes prebuilds/: the addon by prebuildify and, where there is a CUDA toolkit (`npm run cuda:toolkit`, or CUDACXX), the CUDA library for every architecture
// beside it. Environment as CMake's: CC, CXX, …; CHIASMA_CMAKE_DIR as build-addon.mjs has it.
import { spawnSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildCuda } from './build-cuda.mjs'
import { findToolkit } from './cuda-toolkit.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const prebuildify = createRequire(import.meta.url).resolve('prebuildify/bin.js')
const options = ['--napi', '--strip', '--tag-libc', '-t', '20.19.0', '--node-gyp', join(root, 'scripts/prebuildify-node-gyp.mjs')]
try {
  const { status, error } = spawnSync(process.execPath, [prebuildify, ...options], { cwd: root, stdio: 'inherit' })
  if (error || status !== 0) throw new Error(`prebuildify failed${error ? `: ${error.message}` : ''}`)
  const toolkit = process.platform === 'linux' && process.arch === 'x64' ? findToolkit() : undefined
  if (toolkit) {
    const library = buildCuda(toolkit, { release: true })
    copyFileSync(library, join(root, 'prebuilds/linux-x64/libchiasma_cuda.so'))
  } else {
    console.log('prebuild: without the CUDA library, since there is no toolkit (`npm run cuda:toolkit`)')
  }
} catch (error) {
  console.error(`prebuild: ${error.message}`)
  process.exitCode = 1
}
