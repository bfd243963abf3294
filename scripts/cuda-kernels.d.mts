export interface Kernel {
  name: string
  arguments: string[]
  source: string
  architecture: string
  registers: number
  stack: number
  spills: number
  staticShared: number
  threads: number
  counts: Record<string, number>
}
export const hot: Record<string, { holds: (types: string[]) => (string | [string, number])[]; shared?: (types: string[]) => number }>
export const plain: Record<string, string>
export function parseName(demangled: string): { name: string; arguments: string[] }
export function parseResources(text: string, architecture: string): Record<string, Pick<Kernel, 'registers' | 'stack' | 'spills' | 'staticShared'>>
export function parseInstructions(text: string): Record<string, Record<string, number>>
export function complaints(kernels: Kernel[]): string[]
