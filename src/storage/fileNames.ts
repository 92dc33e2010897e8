import { ApiError } from '../errors.ts';

const bytesMax = 255;
/** Separators, drive letters, control characters, and marks that make a name read backwards. */
const forbidden = /[/\\\p{Cc}\u202a-\u202e\u2066-\u2069]|^[a-z]:|^\.{1,2}$/iu;

/**
 * The name of an uploaded file, which is only ever shown: nothing is stored under it. Names that would leave a folder are refused all
 * the same, percent-encoded ones too, because whoever downloads the file gets the name again.
 */
export function checkFileName(name: string): string {
  const invalid = (why: string): never => {
    throw new ApiError('INVALID', `The file name ${why}. Send the plain name of the file, such as digits.zip.`);
  };
  if (name === '') invalid('is missing');
  if (Buffer.byteLength(name) > bytesMax) invalid(`is longer than ${bytesMax} bytes`);
  if (!name.isWellFormed()) invalid('is not valid Unicode');
  for (let form = name; ; ) {
    if (forbidden.test(form)) invalid('has a path or a control character in it');
    const decoded = percentDecoded(form);
    if (decoded === form) return name;
    form = decoded;
  }
}

/** Each decoding is shorter than the last, so this comes to an end. */
function percentDecoded(text: string): string {
  return text.replace(/%[0-9a-f]{2}/gi, (code) => String.fromCharCode(Number.parseInt(code.slice(1), 16)));
}
