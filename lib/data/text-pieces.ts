// Cuts long texts into pieces whose tokens, put one after another, are those of the whole text: at places that no token reaches across. So a
// text of a megabyte is read only as far as its tokens are kept, and the event loop gets its turn between pieces.

/** Characters of a piece at least. */
const PIECE = 2048

interface Description {
  readonly normalizer?: unknown
  readonly pre_tokenizer?: { readonly type?: string; readonly pretokenizers?: readonly { readonly type?: string }[] } | null
  readonly model?: { readonly type?: string; readonly max_input_chars_per_word?: number }
  readonly added_tokens?: readonly { readonly content: string; readonly rstrip?: boolean }[]
}

/** Finds where text may be cut; undefined where a tokenizer's steps see the whole text. */
export class TextPieces {
  /** Matches at a place to cut before; undefined: nowhere. */
  private readonly place: RegExp | undefined
  private readonly dropsLongWords: boolean

  constructor({ normalizer, pre_tokenizer, model, added_tokens = [] }: Description) {
    const types = pre_tokenizer?.type === 'Sequence' ? (pre_tokenizer.pretokenizers ?? []).map(({ type }) => type) : [pre_tokenizer?.type]
    const isBert = types.length === 1 && types[0] === 'BertPreTokenizer'
    // A space put before the text would be put before every piece; an added token may swallow the blanks that follow it, or hold some.
    const seesAll =
      /"type":"Prepend"/.test(JSON.stringify(normalizer ?? null)) ||
      types.every(type => !['BertPreTokenizer', 'ByteLevel', 'Split', 'Whitespace', 'WhitespaceSplit', 'Metaspace'].includes(type ?? '')) ||
      added_tokens.some(({ content, rstrip }) => rstrip || /\s/.test(content))
    // A blank after a letter or digit begins a new word for all of them. BERT takes any Chinese character and punctuation by itself, except
    // within added tokens.
    const marks = [...'.,;:!?'].filter(mark => !added_tokens.some(({ content }) => content.includes(mark))).join('')
    if (!seesAll) this.place = isBert ? new RegExp(`[ \\n${marks}\\u4e00-\\u9fff]`, 'g') : /(?<=[\p{L}\p{N}])[ \n]/gu
    // A word of more than a hundred letters is unknown to WordPiece, however long it is.
    const isCut = model?.type === 'WordPiece' && (model.max_input_chars_per_word ?? 100) <= 100
    this.dropsLongWords = isBert && isCut && !added_tokens.some(({ content }) => /^[A-Za-z]+$/.test(content))
  }

  *of(text: string): Generator<string, void, undefined> {
    if (this.dropsLongWords && text.length > PIECE) text = text.replace(/[A-Za-z]{201,}/g, word => word.slice(0, 200))
    const { place } = this
    for (let start = 0; ; ) {
      let end = text.length
      if (place && start + PIECE < text.length) {
        place.lastIndex = start + PIECE
        end = place.exec(text)?.index ?? text.length
      }
      yield text.slice(start, end)
      if (end === text.length) return
      start = end
    }
  }
}

/** `length`, or one less if that is within a surrogate pair. */
export function betweenCharacters(text: string, length: number): number {
  return /[\udc00-\udfff]/.test(text[length]!) ? length - 1 : length
}
