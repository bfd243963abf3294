// What open_clip does to texts before Hugging Face's tokenizers see them (its HFTokenizer's `clean`). Broken encodings and HTML's entities, which
// it also mends, are left as they are.

/** 'whitespace': every stretch of it is one blank, and none at the ends; 'lower': in small letters, too; 'canonicalize': without punctuation, too. */
export const TEXT_CLEANINGS = ['whitespace', 'lower', 'canonicalize'] as const
export type TextCleaning = (typeof TEXT_CLEANINGS)[number]

/** What Python takes for white space. */
const WHITE_SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g
const PUNCTUATION = /[!-/:-@[-^`{-~]/g

export function cleanText(text: string, cleaning: TextCleaning): string {
  const letters = cleaning === 'canonicalize' ? text.replaceAll('_', ' ').replace(PUNCTUATION, '') : text
  return (cleaning === 'whitespace' ? letters : letters.toLowerCase()).replace(WHITE_SPACE, ' ').replace(/^ | $/g, '')
}
