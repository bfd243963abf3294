// Builds the addon with cmake-js in build/cmake; the finished addon lands in build/Release.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js')
const result = spawnSync(process.execPath, [cmakeJs, 'compile', '-O', 'build/cmake', '--parallel', '2', ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
})
process.exit(result.status ?? 1)
