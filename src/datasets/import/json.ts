/**
 * Arrays in a large JSON file, one element at a time: the file is never values as a whole, which would take many times its size, and
 * what nobody asked for is passed over.
 */
import { isUtf8 } from 'node:buffer';

/** The bytes are not the JSON that was expected; the message is a reason. */
export class BadJson extends Error {}

const depthMax = 100;
const elementBytesMax = 4 * 2 ** 20;

/** Integers that a number cannot hold exactly stay texts: rounded, two ids would be one. */
const asText = (_key: string, value: unknown, context?: { source?: string }): unknown =>
  Number.isInteger(value) && !Number.isSafeInteger(value) ? context?.source : value;
const largeInteger = /(?<![\d.])\d{16}/;

const quote = 0x22;
const backslash = 0x5c;
const isOpening = (byte: number): boolean => byte === 0x5b || byte === 0x7b;
const isClosing = (byte: number): boolean => byte === 0x5d || byte === 0x7d;
const isSpace = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/**
 * Gives each element of the arrays under these keys of the object in `bytes` to their handlers, with its place from 0, in the order of
 * the file; returns which of the keys there are. `null` is for a key that is only looked for. Throws a BadJson, also for a key that stands there twice.
 */
export function readArrays(bytes: Buffer, handlers: Record<string, ((element: unknown, index: number) => void) | null>): Set<string> {
  let at = bytes.toString('latin1', 0, 3) === '\xef\xbb\xbf' ? 3 : 0;
  const space = () => {
    while (isSpace(bytes[at])) at += 1;
  };
  const take = (character: string) => {
    space();
    if (bytes[at] !== character.charCodeAt(0)) throw new BadJson(`is not JSON: expected ${character} at byte ${at}`);
    at += 1;
  };
  /** Whether another member follows, behind the comma. */
  const more = (end: string, first: boolean): boolean => {
    space();
    if (bytes[at] === end.charCodeAt(0)) {
      at += 1;
      return false;
    }
    if (!first) take(',');
    space();
    return true;
  };
  const parse = (from: number, what: string): unknown => {
    if (at - from > elementBytesMax) throw new BadJson(`${what} is larger than ${elementBytesMax / 2 ** 20} MiB`);
    const part = bytes.subarray(from, at);
    if (!isUtf8(part)) throw new BadJson(`${what} is not a text in UTF-8: save the file in this encoding`);
    const text = part.toString('utf8');
    try {
      return largeInteger.test(text) ? JSON.parse(text, asText) : JSON.parse(text);
    } catch {
      throw new BadJson(`${what} is not JSON (NaN and Infinity are none either)`);
    }
  };

  const found = new Set<string>();
  if (/^(\xff\xfe|\xfe\xff)/.test(bytes.toString('latin1', 0, 2))) throw new BadJson('is in UTF-16: save it in UTF-8');
  space();
  if (bytes[at] === '['.charCodeAt(0)) throw new BadJson(`is a list, but an object with ${Object.keys(handlers).join(', ')} is expected`);
  take('{');
  for (let first = true; more('}', first); first = false) {
    const from = at;
    at = endOfValue(bytes, at);
    const key = parse(from, `the key at byte ${from}`);
    if (typeof key !== 'string') throw new BadJson(`is not JSON: expected a key at byte ${from}`);
    take(':');
    space();
    const handle = Object.hasOwn(handlers, key) ? handlers[key] : undefined;
    if (handle === undefined) {
      at = endOfValue(bytes, at);
      continue;
    }
    if (bytes.toString('latin1', at, at + 4) === 'null') {
      at += 4;
      continue;
    }
    if (found.has(key)) throw new BadJson(`has ${key} twice`);
    found.add(key);
    if (handle === null) {
      at = endOfValue(bytes, at);
      continue;
    }
    if (bytes[at] !== 0x5b) throw new BadJson(`has ${key} that is not a list`);
    at += 1;
    for (let index = 0; more(']', index === 0); index += 1) {
      const start = at;
      at = endOfValue(bytes, at);
      handle(parse(start, `${key}[${index}]`), index);
    }
  }
  space();
  if (at < bytes.length) throw new BadJson(`is not JSON: there is more behind its end at byte ${at}`);
  return found;
}

/** Where the value that begins at `at` ends. What is inside is checked when it is parsed. */
function endOfValue(bytes: Buffer, start: number): number {
  let at = start;
  let depth = 0;
  do {
    const byte = bytes[at];
    if (byte === undefined) throw new BadJson('is not whole: it ends within a value');
    if (byte === quote) at = endOfString(bytes, at);
    else if (isOpening(byte)) {
      depth += 1;
      if (depth > depthMax) throw new BadJson(`is nested deeper than ${depthMax} levels at byte ${at}`);
      at += 1;
    } else if (isClosing(byte)) {
      depth -= 1;
      at += 1;
    } else if (depth > 0) at += 1;
    else at = endOfWord(bytes, at);
  } while (depth > 0);
  if (depth < 0 || at === start) throw new BadJson(`is not JSON: expected a value at byte ${start}`);
  return at;
}

function endOfString(bytes: Buffer, start: number): number {
  for (let at = start + 1; ; at += 1) {
    const byte = bytes[at];
    if (byte === undefined) throw new BadJson('is not whole: it ends within a text');
    if (byte === quote) return at + 1;
    if (byte === backslash) at += 1;
  }
}

/** Of a number, true, false or null. */
function endOfWord(bytes: Buffer, start: number): number {
  let at = start;
  for (let byte = bytes[at]; byte !== undefined && byte !== 0x2c && byte !== 0x3a && !isSpace(byte) && !isClosing(byte); byte = bytes[at])
    at += 1;
  return at;
}

/** Which of these keys the object in `bytes` has, without reading their values. Throws a BadJson. */
export function keysOf(bytes: Buffer, wanted: readonly string[]): string[] {
  return [...readArrays(bytes, Object.fromEntries(wanted.map((key) => [key, null])))];
}
