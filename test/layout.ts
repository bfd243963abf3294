// The layers hold: reads the import and #include lines and fails on any that does not run downwards, on import cycles, and on a second
// way to the addon or to Node-API.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Files below `folder` with one of the endings, relative to the repository. */
function filesIn(folder: string, ...endings: string[]): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => join(folder, name))
    .sort()
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

// --- TypeScript ---

/** Rooms of lib on one line may import those above, and themselves, but not each other. */
const tiers = [['core'], ['ops'], ['nn'], ['fusion', 'io'], ['data'], ['models'], ['embed', 'search', 'train'], ['adapters', 'cli'], ['']]
const tierOf = (room: string) => tiers.findIndex((tier) => tier.includes(room))

const importLine = /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[\w*{][^'"\n;]*?(?:\n[^'"\n;]*?)*?\sfrom\s+)?['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)/g

interface Import {
  target: string // a path in the repository, or a package
  typeOnly: boolean
}

function importsOf(file: string): Import[] {
  return [...read(file).matchAll(importLine)].map((match) => {
    const name = match[2] ?? match[3]!
    const target = name.startsWith('.') ? relative(root, resolve(root, dirname(file), name)).replace(/\.js$/, '.ts') : name
    return { target, typeOnly: match[1] !== undefined }
  })
}

/** The room of a file of lib: '' for lib itself. */
function roomOf(file: string): string {
  const parts = file.split('/')
  return parts.length > 2 ? parts[1]! : ''
}

t.test('the pattern finds every kind of import', (t) => {
  const text = [
    "import a from './a.js'",
    "import type { B } from './b.js'",
    'import {',
    '  c,',
    '  type D,',
    "} from './c.js'",
    "export * as e from './e.js'",
    "import './f.js'",
    "const g = await import('./g.js')",
  ].join('\n')
  t.same([...text.matchAll(importLine)].map((m) => m[2] ?? m[3]), ['./a.js', './b.js', './c.js', './e.js', './f.js', './g.js'])
  t.end()
})

t.test('lib imports downwards only', (t) => {
  const wrong: string[] = []
  for (const file of filesIn('lib', '.ts')) {
    const room = roomOf(file)
    if (tierOf(room) < 0) wrong.push(`${file}: '${room}' is no room of lib`)
    for (const { target } of importsOf(file)) {
      if (!target.includes('/') || !/^(lib|typings|test|bench|native|\.\.)\//.test(target)) continue
      if (target === 'typings/addon.ts') continue
      if (!target.startsWith('lib/')) wrong.push(`${file} imports ${target}, outside lib`)
      else if (roomOf(target) !== room && tierOf(roomOf(target)) >= tierOf(room)) wrong.push(`${file} imports ${target}`)
    }
  }
  t.same(wrong, [])
  t.end()
})

t.test('lib has no import cycles', (t) => {
  const graph = new Map(
    filesIn('lib', '.ts').map((file) => [file, importsOf(file).filter(({ target, typeOnly }) => !typeOnly && target.startsWith('lib/'))]),
  )
  const done = new Set<string>()
  const cycles: string[] = []
  function visit(file: string, path: string[]): void {
    if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(' → '))
    if (done.has(file) || path.includes(file)) return
    for (const { target } of graph.get(file) ?? []) visit(target, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  t.same(cycles, [])
  t.end()
})

t.test('only lib/core/native.ts loads the addon', (t) => {
  const others = filesIn('lib', '.ts').filter((file) => file !== 'lib/core/native.ts' && /node-gyp-build|process\.dlopen|\.node['"`]/.test(read(file)))
  t.same(others, [])
  t.end()
})

// --- C++ ---

/** What each room of native/cpp may include besides itself. */
const mayInclude: Readonly<Record<string, readonly string[]>> = {
  core: [],
  cpu: ['core'],
  image: ['core', 'cpu'], // asks cpu/processor what the processor runs
  bridge: ['core', 'cpu', 'image'],
  cuda: ['core'], // native/cuda
  '': ['core', 'cpu', 'image', 'bridge', 'cuda'], // addon.cpp
}

t.test('native includes downwards only', (t) => {
  const wrong: string[] = []
  const rooms = Object.keys(mayInclude)
  for (const file of [...filesIn('native/cpp', '.h', '.cpp'), ...filesIn('native/cuda', '.h', '.cpp', '.cuh', '.cu')]) {
    const parts = file.split('/')
    const room = parts[1] === 'cuda' ? 'cuda' : parts.length > 3 ? parts[2]! : ''
    if (!rooms.includes(room)) wrong.push(`${file}: '${room}' is no room of native/cpp`)
    for (const [, target] of read(file).matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)) {
      const from = target!.split('/')[0]!
      if (/^(napi|node_api|js_native_api)/.test(target!) && room !== 'bridge' && room !== '') wrong.push(`${file} includes ${target}`)
      if (/^cuda(_|\.h)/.test(target!) && room !== 'cuda') wrong.push(`${file} includes ${target}`)
      if (target!.includes('/') && rooms.includes(from) && from !== room && !mayInclude[room]?.includes(from)) wrong.push(`${file} includes ${target}`)
      if (target!.startsWith('..')) wrong.push(`${file} includes ${target}; paths start at native/cpp or native`)
    }
  }
  t.same(wrong, [])
  t.end()
})
