export function simdObjects(build: string): { isa: string; file: string }[]
export function complaints(isa: string, symbols: string): string[]
export function nm(file: string): string
