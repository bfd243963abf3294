// zig's Clang from PyPI, pinned, in build/tools: it compiles C++ for other systems and for old versions of glibc. CHIASMA_ZIG (path to zig) names another.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const version = '0.17.1'
const tools = join(dirname(dirname(fileURLToPath(import.meta.url))), 'build/tools')

/** The path of zig, which is fetched where it is not there yet. */
function zig() {
  if (process.env.CHIASMA_ZIG) return process.env.CHIASMA_ZIG
  const site = join(tools, `ziglang-${version}`)
  const path = join(site, 'ziglang/zig')
  if (!existsSync(path)) {
    const args = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', site, `ziglang==${version}`]
    const { status, error } = spawnSync('python3', args, { stdio: 'inherit' })
    if (status !== 0) throw new Error(`python3 ${args.join(' ')} failed${error ? `: ${error.message}` : ''}`)
  }
  return path
}

/** Programs that call zig's, for a target such as 'x86_64-linux-gnu.2.28': `{ cc, cxx, ar, ranlib, dlltool, rc }`, paths. */
export function zigTools(target) {
  const path = zig()
  const folder = join(tools, `zig-${target}`)
  mkdirSync(folder, { recursive: true })
  const program = (name, command) => {
    const file = join(folder, name)
    writeFileSync(file, `#!/bin/sh\nexec "${path}" ${command} "$@"\n`)
    chmodSync(file, 0o755)
    return file
  }
  // zig would check for undefined behaviour, and stop there, unasked.
  const compile = `-target ${target} -fno-sanitize=undefined`
  return {
    cc: program('cc', `cc ${compile}`),
    cxx: program('c++', `c++ ${compile}`),
    ar: program('ar', 'ar'),
    ranlib: program('ranlib', 'ranlib'),
    dlltool: program('dlltool', 'dlltool'),
    rc: program('rc', 'rc'),
  }
}
