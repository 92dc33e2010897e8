/** Numbers, times and texts as they stand on the screen. */
import stringWidth from 'string-width';

/** Messages may come from a file that somebody uploaded: nothing in them steers the terminal. */
export const printable = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, ' ');

/** Exactly `width` cells: cut with an ellipsis, or filled with spaces. */
export function padTo(text: string, width: number, align: 'left' | 'right' = 'left'): string {
  // Nearly all cells of a list are such: this is faster than to measure them.
  if (text.length <= width && /^[ -~]*$/.test(text)) return align === 'left' ? text.padEnd(width) : text.padStart(width);
  const clean = printable(text);
  const cut = stringWidth(clean) <= width ? clean : `${firstCells(clean, width - 1)}…`;
  const fill = ' '.repeat(Math.max(0, width - stringWidth(cut)));
  return width < 1 ? '' : align === 'left' ? cut + fill : fill + cut;
}

function firstCells(text: string, width: number): string {
  let result = '';
  let used = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    used += stringWidth(segment);
    if (used > width) break;
    result += segment;
  }
  return result;
}

/** Cells that the longest of some texts needs, at least `least` and at most `most`. */
export const widest = (texts: readonly string[], least: number, most: number): number =>
  Math.max(least, Math.min(most, Math.max(0, ...texts.map((text) => stringWidth(printable(text))))));

/** Lines of at most `width` cells, broken between words where that is possible. */
export function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((line) => {
    const lines: string[] = [];
    let rest = printable(line).trimEnd();
    while (stringWidth(rest) > width) {
      const head = firstCells(rest, width);
      const space = head.lastIndexOf(' ');
      const end = space > width / 2 ? space : head.length;
      lines.push(rest.slice(0, end));
      rest = rest.slice(end).trimStart();
    }
    return [...lines, rest];
  });
}

/** A command of a shell in lines that can be pasted: a line ends before an option, with a backslash. */
export function continued(command: string, width: number): string[] {
  const words = printable(command).match(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g) ?? [];
  const lines = [''];
  for (const [i, word] of words.entries()) {
    const line = lines.at(-1) as string;
    const value = words[i + 1]?.startsWith('-') ? undefined : words[i + 1];
    const isTooLong = stringWidth([line, word, value, '\\'].filter(Boolean).join(' ')) > width;
    if (word.startsWith('-') && isTooLong) {
      lines[lines.length - 1] = `${line} \\`;
      lines.push(`  ${word}`);
    } else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines;
}

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace('e+', 'e');
  return String(Number(value.toPrecision(4)));
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '–';
  const seconds = Math.round(ms / 1000);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d`;
}

export const milliseconds = (ns: number | null | undefined): string =>
  ns === null || ns === undefined ? '–' : `${(ns / 1e6).toPrecision(3)} ms`;

export const age = (at: string | null | undefined, now = Date.now()): string =>
  at ? duration(Math.max(0, now - Date.parse(at))).replace(/ \d+ (s|min)$/, '') : '–';

export const clock = (at: string): string => new Date(at).toTimeString().slice(0, 8);

/** `2026-11-29 14:05:09`, in the time of this machine. */
export const moment = (at: string): string => new Date(at).toLocaleString('sv-SE');

/** `████████░░░░ 66 %`, in `width` cells. */
export function bar(share: number, width: number): string {
  const known = Math.min(1, Math.max(0, share));
  const cells = Math.max(1, width - 6);
  const full = Math.round(known * cells);
  return `${'█'.repeat(full)}${'░'.repeat(cells - full)} ${String(Math.floor(known * 100)).padStart(3)} %`;
}

/** `2 × 1` are two instances of one thread each. */
export const threadsText = ({ intraOpThreads, instances = 1 }: { intraOpThreads?: number; instances?: number }): string =>
  instances === 1 ? String(intraOpThreads) : `${instances} × ${intraOpThreads}`;
