// All fixtures and the real models on the CUDA device's simulator, in f32, bf16 and f16: test/cuda/models.ts, which `npm test` runs a part of.
import { spawnSync } from 'node:child_process'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

const { status } = spawnSync('npx', ['tap', 'run', '--timeout=3600', 'test/cuda/models.ts', ...process.argv.slice(2)], {
  cwd: dirname(dirname(fileURLToPath(import.meta.url))),
  stdio: 'inherit',
  env: { ...process.env, CHIASMA_CUDA_MODELS: 'all' },
})
process.exit(status ?? 1)
