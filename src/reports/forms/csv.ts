export type Value = string | number | boolean | null | undefined;

/** RFC 4180. A text that a spreadsheet would compute gets an apostrophe, as OWASP's "CSV Injection" advises. */
export function toCsv(head: string[], rows: Iterable<Value[]>): string {
  const cell = (value: Value) => {
    const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? '');
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [head, ...rows].map((line) => line.map(cell).join(','));
  return `${lines.join('\r\n')}\r\n`;
}
