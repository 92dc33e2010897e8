/**
 * Curves as lines of text: pure, from points to cells. A cell of braille has 2 × 4 dots, one of the fallback (half blocks) 1 × 2. Where
 * several curves meet in a cell, the last of them gives it its colour.
 */
export interface Series {
  name: string;
  /** A character that stands on the curve here and there, so that it is known without colours. */
  mark?: string;
  /** Whether the points stand for themselves, each with the mark, and are no curve. */
  isScattered?: boolean;
  points: readonly { x: number; y: number }[];
}

export interface PlotOptions {
  /** Cells, with axes and labels. */
  width: number;
  height: number;
  log?: boolean;
  glyphs?: 'braille' | 'blocks';
}

/** A piece of a line: of a curve, or of the axes (null). */
export interface Piece {
  text: string;
  series: number | null;
}

interface Glyphs {
  dotsX: number;
  dotsY: number;
  /** Bits of a cell's dots, row by row. */
  bits: readonly number[];
  draw(bits: number): string;
}

const glyphTable: Record<'braille' | 'blocks', Glyphs> = {
  braille: {
    dotsX: 2,
    dotsY: 4,
    bits: [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80],
    draw: (bits) => String.fromCodePoint(0x2800 + bits),
  },
  blocks: { dotsX: 1, dotsY: 2, bits: [1, 2], draw: (bits) => ' ▀▄█'[bits] as string },
};

/** The curves in a frame of axes, `height` lines of `width` cells; too little room gives fewer labels, never a wider line. */
export function plot(series: readonly Series[], { width, height, log = false, glyphs = 'braille' }: PlotOptions): Piece[][] {
  const table = glyphTable[glyphs];
  const scaleY = (y: number) => (log ? Math.log10(y) : y);
  const usable = series.map(({ points }) => points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(scaleY(y))));
  const all = usable.flat();
  const rows = Math.max(1, height - 1);
  if (all.length === 0) return note(log ? 'nothing above 0 to show on a log axis' : 'no points yet', width, height);

  const [yMin, yMax] = widened(extent(all.map(({ y }) => scaleY(y))));
  const [xMin, xMax] = extent(all.map(({ x }) => x));
  const unscale = (y: number) => (log ? 10 ** y : y);
  const labels = [unscale(yMax), unscale((yMin + yMax) / 2), unscale(yMin)].map(tick);
  const margin = Math.min(Math.max(...labels.map((label) => label.length)) + 1, Math.max(0, width - 4));
  const columns = Math.max(1, width - margin - 1);

  const grid: Grid = { columns, rows, bits: new Uint8Array(columns * rows), owner: new Int16Array(columns * rows), marks: new Map() };
  const toX = (x: number) => (xMax === xMin ? 0 : Math.round(((x - xMin) / (xMax - xMin)) * (columns * table.dotsX - 1)));
  const toY = (y: number) => Math.round(((yMax - scaleY(y)) / (yMax - yMin)) * (rows * table.dotsY - 1));
  const marks: Mark[] = [];
  usable.forEach((points, owner) => {
    let last: { x: number; y: number } | undefined;
    const { mark, isScattered } = series[owner] as Series;
    for (const point of points) {
      const next = { x: toX(point.x), y: toY(point.y) };
      if (isScattered) {
        spot(grid, table, next, owner);
        if (mark) marks.push({ ...next, owner, mark });
        continue;
      }
      line(last ?? next, next, (x, y) => {
        dot(grid, table, x, y, owner);
        // Each curve has columns of its own for its marks, which would hide one another otherwise.
        const column = Math.floor(x / table.dotsX);
        if (mark && column % marksEvery === marksShift(owner, series.length)) marks.push({ x, y, owner, mark });
      });
      last = next;
    }
    if (mark && last) marks.push({ ...last, owner, mark });
  });
  for (const mark of marks) setMark(grid, table, mark);

  const labelRows = new Map(
    rows < 3
      ? [[0, labels[0]]]
      : [
          [0, labels[0]],
          [Math.floor((rows - 1) / 2), labels[1]],
          [rows - 1, labels[2]],
        ],
  );
  const lines = Array.from({ length: rows }, (_, row) => {
    const label = (labelRows.get(row) ?? '').slice(0, Math.max(0, margin - 1)).padStart(Math.max(0, margin - 1));
    return [{ text: `${label.padEnd(margin)}${labelRows.has(row) ? '┤' : '│'}`, series: null }, ...pieces(grid, table, row)];
  });
  if (height === 1) return lines;
  return [...lines, [{ text: bottom(xMin, xMax, margin, width), series: null }]];
}

const note = (text: string, width: number, height: number): Piece[][] =>
  Array.from({ length: height }, (_, row) => [{ text: row === Math.floor((height - 1) / 2) ? text.slice(0, width) : '', series: null }]);

function extent(values: readonly number[]): [number, number] {
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  return [min, max];
}

/** A constant curve runs through the middle. */
const widened = ([min, max]: [number, number]): [number, number] => {
  if (min < max) return [min, max];
  const half = Math.abs(min) / 2 || 1;
  return [min - half, max + half];
};

export function tick(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1).replace('e+', 'e');
  return String(Number(value.toPrecision(3)));
}

interface Grid {
  columns: number;
  rows: number;
  bits: Uint8Array;
  owner: Int16Array;
  /** By cell: the character that stands there instead of dots. */
  marks: Map<number, string>;
}

/** Cells from one mark of a curve to its next. */
const marksEvery = 12;
const marksShift = (owner: number, count: number): number => Math.floor((owner * marksEvery) / count);

interface Mark {
  x: number;
  y: number;
  owner: number;
  mark: string;
}

/** A steep curve has many dots in a column, and one mark. */
function setMark({ columns, rows, marks, owner: owners }: Grid, { dotsX, dotsY }: Glyphs, { x, y, owner, mark }: Mark): void {
  const [column, row] = [Math.floor(x / dotsX), Math.floor(y / dotsY)];
  if (column < 0 || column >= columns || row < 0 || row >= rows) return;
  for (let other = 0; other < rows; other += 1) if (marks.get(other * columns + column) === mark) return;
  marks.set(row * columns + column, mark);
  owners[row * columns + column] = owner;
}

function dot({ columns, rows, bits, owner }: Grid, { dotsX, dotsY, bits: dotBits }: Glyphs, x: number, y: number, series: number): void {
  const [column, row] = [Math.floor(x / dotsX), Math.floor(y / dotsY)];
  if (column < 0 || column >= columns || row < 0 || row >= rows) return;
  const cell = row * columns + column;
  bits[cell] = (bits[cell] as number) | (dotBits[(y % dotsY) * dotsX + (x % dotsX)] as number);
  owner[cell] = series;
}

/** A point that stands alone: one dot of braille is hard to see. */
function spot(grid: Grid, table: Glyphs, { x, y }: { x: number; y: number }, owner: number): void {
  for (let right = 0; right < table.dotsX; right += 1)
    for (let below = 0; below < table.dotsY / 2; below += 1) dot(grid, table, x + right, y + below, owner);
}

/** Bresenham's line, both ends included. */
function line(from: { x: number; y: number }, to: { x: number; y: number }, draw: (x: number, y: number) => void): void {
  const [dx, dy] = [Math.abs(to.x - from.x), -Math.abs(to.y - from.y)];
  const [stepX, stepY] = [from.x < to.x ? 1 : -1, from.y < to.y ? 1 : -1];
  let { x, y } = from;
  let error = dx + dy;
  for (;;) {
    draw(x, y);
    if (x === to.x && y === to.y) return;
    const doubled = 2 * error;
    if (doubled >= dy) {
      error += dy;
      x += stepX;
    }
    if (doubled <= dx) {
      error += dx;
      y += stepY;
    }
  }
}

/** Neighbours of one colour are one piece. */
function pieces({ columns, bits, owner, marks }: Grid, table: Glyphs, row: number): Piece[] {
  const found: Piece[] = [];
  for (let column = 0; column < columns; column += 1) {
    const cell = row * columns + column;
    const drawn = bits[cell] as number;
    const series = drawn === 0 ? null : (owner[cell] as number);
    const text = drawn === 0 ? ' ' : (marks.get(cell) ?? table.draw(drawn));
    const last = found.at(-1);
    if (last && last.series === series) last.text += text;
    else found.push({ text, series });
  }
  return found;
}

function bottom(xMin: number, xMax: number, margin: number, width: number): string {
  const [left, right] = [tick(xMin), tick(xMax)];
  const line = `${' '.repeat(margin)}└${left}${' '.repeat(Math.max(1, width - margin - 1 - left.length - right.length))}${right}`;
  return line.length > width ? line.slice(0, width) : line;
}

const levels = '▁▂▃▄▅▆▇█';

/** The last `width` values as one line, from 0 to `most`, by default the largest of them. */
export function sparkline(values: readonly number[], width: number, most?: number): string {
  const shown = width > 0 ? values.slice(-width) : [];
  const top = most ?? Math.max(...shown, 1e-9);
  const level = (value: number) => Math.round((value / top) * (levels.length - 1));
  return shown.map((value) => levels[Math.min(levels.length - 1, Math.max(0, level(value)))]).join('');
}

/**
 * A bar of at most `width` cells on a scale from 0 to `most`: full up to the lower end of the interval, then ▓ up to the value, ░ up to the
 * upper end.
 */
export function intervalBar(value: number, low: number | null, high: number | null, most: number, width: number): string {
  const cell = (at: number) => Math.round((Math.max(0, Math.min(at, most)) / most) * width);
  const [from, middle, to] = [cell(Math.min(low ?? value, value)), cell(value), cell(Math.max(high ?? value, value))];
  return '█'.repeat(from) + '▓'.repeat(middle - from) + '░'.repeat(to - middle);
}
