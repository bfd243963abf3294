// Builds the addon from source: CMake by cmake-js in build/cmake, the finished addon in build/Release. In a clone cmake-js is a
// development dependency; in an installed package npm fetches the pinned version once. Further arguments go to cmake-js, e.g. --CDCHIASMA_SANITIZE=address.
//   CHIASMA_CMAKE_DIR   another folder than build/cmake, for a build by another compiler
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const cmakeJsVersion = '8.0.0'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)

function cmakeJs() {
  try {
    return [process.execPath, join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js')]
  } catch {
    return ['npm', 'exec', '--yes', `--package=cmake-js@${cmakeJsVersion}`, '--', 'cmake-js']
  }
}

// Headers come from node-api-headers; a configured nodedir would put others in their place.
const env = { ...process.env }
delete env.npm_config_nodedir

const [command, ...args] = cmakeJs()
const output = process.env.CHIASMA_CMAKE_DIR ?? 'build/cmake'
const options = ['compile', '-O', output, '--parallel', String(availableParallelism()), ...process.argv.slice(2)]
const result = spawnSync(command, [...args, ...options], { cwd: root, env, stdio: 'inherit' })
if (result.error) console.error(`chiasma: cannot run ${command}: ${result.error.message}`)
process.exit(result.status ?? 1)
