import { createHash } from 'node:crypto';

/**
 * The one JSON text of a value: keys sorted by their UTF-16 units, no white space, numbers as ECMAScript writes them (RFC 8785).
 * Fields that are undefined are left out; anything else that JSON cannot hold throws.
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    return `{${fields
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, field]) => `${JSON.stringify(name)}:${canonicalJson(field)}`)
      .join(',')}}`;
  }
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) throw new Error(`${value} has no JSON form.`);
  return JSON.stringify(value);
}

/** SHA-256 of the canonical JSON, in hexadecimal. */
export function canonicalHash(value: unknown): string {
  return createHash('sha256').update(canonicalJson(value)).digest('hex');
}

/** A value as a line of a JSON-lines file. Node's readline ends lines at U+2028 and U+2029 also, and JSON does not escape them. */
export const jsonLine = (value: unknown): string =>
  `${JSON.stringify(value).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029')}\n`;
