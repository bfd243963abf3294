// Makes the prebuilt addon that is published: `npm run prebuild` with a compiler that targets glibc 2.28, the oldest that Node 20 runs on.
// The compiler is zig's Clang (zig.mjs).
// What is published has the CUDA library, so there must be a toolkit.
// The addon that the clone has built for itself stays in build/Release.
import { spawnSync } from 'node:child_process'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findToolkit } from './cuda-toolkit.mjs'
import { zigTools } from './zig.mjs'

const target = 'x86_64-linux-gnu.2.28'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { cc, cxx, ar, ranlib } = zigTools(target)

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (result.error || result.status !== 0) throw new Error(`${command} ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}`)
}

if (!findToolkit()) throw new Error('no CUDA toolkit for the library that is published: `npm run cuda:toolkit` makes one')

const cmakeDir = 'build/cmake-release'
const output = join(root, 'build/Release')
const own = join(root, 'build/Release.own')
rmSync(join(root, cmakeDir), { recursive: true, force: true })
rmSync(join(root, 'prebuilds'), { recursive: true, force: true })
rmSync(own, { recursive: true, force: true })
if (existsSync(output)) renameSync(output, own)
try {
  run('npm', ['run', 'prebuild'], {
    env: {
      ...process.env,
      CHIASMA_CMAKE_DIR: cmakeDir,
      CC: cc,
      CXX: cxx,
      AR: ar,
      RANLIB: ranlib,
    },
  })
} finally {
  // prebuildify has moved the finished addon to prebuilds.
  rmSync(output, { recursive: true, force: true })
  if (existsSync(own)) renameSync(own, output)
}
