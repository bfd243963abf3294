import { UnsupportedError } from '../core/errors.js'
import type { TensorEntry } from './entry.js'

export async function readPytorchEntries(file: string): Promise<TensorEntry[]> {
  throw new UnsupportedError(`${file}: PyTorch files are not read yet`, { file })
}
