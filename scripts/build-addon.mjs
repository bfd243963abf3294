// Builds the addon from source: CMake by cmake-js in build/cmake, the finished addon in build/Release. In a clone cmake-js is a
// development dependency; in an installed package npm fetches the pinned version once, into build/tools. Further arguments go to cmake-js, e.g.
// --CDCHIASMA_SANITIZE=address.
//   CHIASMA_CMAKE_DIR   another folder than build/cmake, for a build by another compiler
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const cmakeJsVersion = '8.0.0'
const root = dirname(dirname(fileURLToPath(import.meta.url)))

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (error) console.error(`chiasma: cannot run ${command}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

/** The command line of cmake-js, a script for Node. */
function cmakeJs() {
  const tools = join(root, 'build/tools')
  const find = () => [root, tools].map((folder) => join(folder, 'node_modules/cmake-js/bin/cmake-js')).find((file) => existsSync(file))
  if (!find()) {
    mkdirSync(tools, { recursive: true })
    const install = ['install', '--prefix', '.', '--ignore-scripts', '--no-audit', '--no-fund', `cmake-js@${cmakeJsVersion}`]
    run('npm', install, { cwd: tools, shell: process.platform === 'win32' })
  }
  return find()
}

// Headers come from node-api-headers; a configured nodedir would put others in their place.
const env = { ...process.env }
delete env.npm_config_nodedir

const output = process.env.CHIASMA_CMAKE_DIR ?? 'build/cmake'
// Visual Studio's own compiler has no vector types; its installer offers Clang. Another generator finds its compiler itself.
const given = process.argv.slice(2)
const toolset = process.platform === 'win32' && !given.some((option) => /^(-G|--generator|-T|--toolset)/.test(option)) ? ['--toolset', 'ClangCL'] : []
run(process.execPath, [cmakeJs(), 'compile', ...toolset, '--target', 'chiasma', '-O', output, '--parallel', String(availableParallelism()), ...given], { env })
