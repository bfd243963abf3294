// Cuts long texts into pieces whose tokens, put one after another, are those of the whole text: at places that no token reaches across. So a
// text of a megabyte is read only as far as its tokens are kept, and the event loop gets its turn between pieces.

/** Characters of a piece at least. */
const PIECE = 2048

interface Description {
  readonly normalizer?: unknown
  readonly pre_tokenizer?: unknown
  readonly model?: { readonly type?: string; readonly max_input_chars_per_word?: number }
  readonly added_tokens?: readonly { readonly content: string; readonly rstrip?: boolean }[]
}

type Step = Readonly<Record<string, unknown>>

/** Finds where text may be cut; undefined where a tokenizer's steps see the whole text. */
export class TextPieces {
  /** Matches at a place to cut before; undefined: nowhere. */
  private readonly place: RegExp | undefined
  private readonly dropsLongWords: boolean

  /** @param normalize what `normalizer` describes */
  constructor({ normalizer, pre_tokenizer, model, added_tokens = [] }: Description, normalize: (text: string) => string) {
    const [normalizers, steps] = [stepsOf(normalizer, 'normalizers'), stepsOf(pre_tokenizer, 'pretokenizers')]
    const isBert = steps.length === 1 && steps[0]!['type'] === 'BertPreTokenizer'
    // What is done at a text's beginning would be done at every piece's; an added token may swallow the blanks that follow it, or hold some.
    const seesAll = normalizers.some(seesBeginning) || !steps.some(cutsAtBlanks) || added_tokens.some(({ content, rstrip }) => rstrip || /\s/.test(content))
    // A blank after a letter or digit begins a new word for all of them. BERT takes any Chinese character and punctuation by itself, except
    // within added tokens.
    const marks = [...'.,;:!?'].filter(mark => !added_tokens.some(({ content }) => content.includes(mark))).join('')
    const chinese = normalizers.some(({ type, handle_chinese_chars }) => type === 'BertNormalizer' && handle_chinese_chars !== false) ? '\\u4e00-\\u9fff' : ''
    // A word in front of which a blank is put begins with one already.
    const blanks = steps.some(putsBlank) && !normalize('\n').startsWith(' ') ? '[ ]' : '[ \\n]'
    if (!seesAll) this.place = isBert ? new RegExp(`[ \\n${marks}${chinese}]`, 'g') : new RegExp(`(?<=[\\p{L}\\p{N}])${blanks}`, 'gu')
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

/** The steps of a description, those in sequences one by one. */
function stepsOf(description: unknown, parts: string): Step[] {
  const step = (description ?? {}) as Step
  return step['type'] === 'Sequence' ? ((step[parts] ?? []) as unknown[]).flatMap(part => stepsOf(part, parts)) : [step]
}

/** Whether a normalizer does something at the beginning of a text, or with a pattern that knows where it ends. */
function seesBeginning({ type, strip_left, pattern }: Step): boolean {
  const { Regex: regex = '' } = (pattern ?? {}) as Step
  return type === 'Prepend' || (type === 'Strip' && strip_left !== false) || (type === 'Replace' && /(?<!\[)\^|\$|\\[AzZG]/.test(String(regex)))
}

function cutsAtBlanks({ type, behavior }: Step): boolean {
  if (type === 'Split') return !String(behavior).startsWith('Merged')
  return ['BertPreTokenizer', 'ByteLevel', 'Whitespace', 'WhitespaceSplit', 'Metaspace'].includes(String(type))
}

/** Whether a text that begins with none gets a blank. */
function putsBlank({ type, add_prefix_space }: Step): boolean {
  return type === 'Metaspace' || (type === 'ByteLevel' && add_prefix_space === true)
}

/** `length`, or one less if that is within a surrogate pair. */
export function betweenCharacters(text: string, length: number): number {
  return /[\udc00-\udfff]/.test(text[length]!) ? length - 1 : length
}
