// Makes the prebuilt addon that is published: `npm run prebuild` with a compiler that targets glibc 2.28, the oldest that Node 20 runs on.
// The compiler is zig's clang from PyPI, pinned, in build/tools; a toolchain of the same kind may be named by CHIASMA_ZIG (path to zig).
// The addon that the clone has built for itself stays in build/Release.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const zigVersion = '0.17.1'
const target = 'x86_64-linux-gnu.2.28'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const tools = join(root, 'build/tools')

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (result.error || result.status !== 0) throw new Error(`${command} ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}`)
}

let zig = process.env.CHIASMA_ZIG
if (!zig) {
  const site = join(tools, `ziglang-${zigVersion}`)
  zig = join(site, 'ziglang/zig')
  if (!existsSync(zig)) run('python3', ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', site, `ziglang==${zigVersion}`])
}

mkdirSync(tools, { recursive: true })
function wrapper(name, command) {
  const path = join(tools, name)
  writeFileSync(path, `#!/bin/sh\nexec "${zig}" ${command} "$@"\n`)
  chmodSync(path, 0o755)
  return path
}
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
      CC: wrapper('zig-cc', `cc -target ${target} -fno-sanitize=undefined`),
      CXX: wrapper('zig-cxx', `c++ -target ${target} -fno-sanitize=undefined`),
      AR: wrapper('zig-ar', 'ar'),
      RANLIB: wrapper('zig-ranlib', 'ranlib'),
    },
  })
} finally {
  // prebuildify has moved the finished addon to prebuilds.
  rmSync(output, { recursive: true, force: true })
  if (existsSync(own)) renameSync(own, output)
}
