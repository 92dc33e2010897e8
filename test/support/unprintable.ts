/** Characters that no class name may hold: a terminal obeys them, or the text around them reads as something else. */
export const unprintables = {
  'a NUL': '\0',
  'an escape': '\x1b',
  'a line feed': '\n',
  'a carriage return': '\r',
  'a delete': '\x7f',
  'an escape of 8 bits': '\x9b',
  'a line separator': '\u2028',
  'a paragraph separator': '\u2029',
  'an override of the direction': '\u202e',
  'an isolate of a direction': '\u2066',
  'a direction mark': '\u200f',
  'an Arabic direction mark': '\u061c',
};
