/**
 * A picture as lines of text: pure, from pixels to cells. A cell is ▀ with two colours, one for each of the two pixels in it. Boxes are drawn
 * over the pixels, each with its label.
 */
import type { ColourDepth } from './theme.ts';

/** RGB, row by row. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8Array;
}

/** In pixels of the picture. */
export interface PictureBox {
  x: number;
  y: number;
  width: number;
  height: number;
  label: string;
  /** Boxes of one class have one colour. */
  class: number;
}

type Colour = readonly [number, number, number];

/** Those of Okabe and Ito, as everywhere. */
const boxColours: readonly Colour[] = [
  [86, 180, 233],
  [230, 159, 0],
  [47, 191, 146],
  [204, 121, 167],
  [240, 228, 66],
];
const black: Colour = [0, 0, 0];

interface Cell {
  text: string;
  front: Colour;
  back: Colour;
}

/** Lines with the sequences that colour them; none where there are no colours. Of boxes that overlap the first is on top. */
export function pictureLines(pixels: Pixels, boxes: readonly PictureBox[], depth: ColourDepth): string[] {
  if (depth === 'NONE') return [];
  const drawn: Pixels = { ...pixels, data: pixels.data.slice() };
  for (const box of boxes.toReversed()) outline(drawn, box);
  const rows = Array.from({ length: Math.ceil(drawn.height / 2) }, (_, row) =>
    Array.from({ length: drawn.width }, (_, column): Cell => {
      const below = 2 * row + 1 < drawn.height ? at(drawn, column, 2 * row + 1) : black;
      return { text: '▀', front: at(drawn, column, 2 * row), back: below };
    }),
  );
  for (const box of boxes) write(rows, box);
  return rows.map((cells) => lineOf(cells, depth));
}

const at = ({ width, data }: Pixels, x: number, y: number): Colour => {
  const i = 3 * (y * width + x);
  return [data[i] as number, data[i + 1] as number, data[i + 2] as number];
};

const colourOf = ({ class: index }: PictureBox): Colour => boxColours[Math.abs(index) % boxColours.length] as Colour;

/** First and last pixel of a box, inside the picture. */
function edges({ width, height }: Pixels, box: PictureBox) {
  const inside = (value: number, most: number) => Math.max(0, Math.min(most, Math.round(value)));
  const [left, top] = [inside(box.x, width - 1), inside(box.y, height - 1)];
  return { left, top, right: inside(box.x + box.width - 1, width - 1), bottom: inside(box.y + box.height - 1, height - 1) };
}

function outline(pixels: Pixels, box: PictureBox): void {
  const { left, top, right, bottom } = edges(pixels, box);
  const set = (x: number, y: number) => pixels.data.set(colourOf(box), 3 * (y * pixels.width + x));
  for (let x = left; x <= right; x += 1) {
    set(x, top);
    set(x, bottom);
  }
  for (let y = top; y <= bottom; y += 1) {
    set(left, y);
    set(right, y);
  }
}

/** The label stands in the line above the box, or in its first one where there is none above; none over another label. */
function write(rows: Cell[][], box: PictureBox): void {
  const columns = rows[0]?.length ?? 0;
  const left = Math.max(0, Math.min(columns - 1, Math.round(box.x)));
  const row = rows[Math.max(0, Math.floor(Math.max(0, box.y) / 2) - 1)];
  const label = [...box.label].slice(0, columns - left);
  if (row?.slice(left, left + label.length).some(({ text }) => text !== '▀')) return;
  row?.splice(left, label.length, ...label.map((text): Cell => ({ text, front: black, back: colourOf(box) })));
}

function lineOf(cells: readonly Cell[], depth: ColourDepth): string {
  let line = '';
  let before = '';
  for (const { text, front, back } of cells) {
    const colours = `\x1b[${codeOf(front, depth, 38)};${codeOf(back, depth, 48)}m`;
    line += colours === before ? text : colours + text;
    before = colours;
  }
  return `${line}\x1b[0m`;
}

/** What selects the colour, in the text (38) or behind it (48). */
function codeOf(colour: Colour, depth: ColourDepth, ground: 38 | 48): string {
  if (depth === 'TRUE') return `${ground};2;${colour.join(';')}`;
  if (depth === 'MANY') return `${ground};5;${nearestOf256(colour)}`;
  const index = nearest(colour, sixteen);
  return String(ground - 8 + (index < 8 ? index : 52 + index));
}

const distance = (a: Colour, b: Colour): number => (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2;

const nearest = (colour: Colour, among: readonly Colour[]): number => {
  const distances = among.map((candidate) => distance(colour, candidate));
  return distances.indexOf(Math.min(...distances));
};

/** The 16 colours as xterm has them; a terminal may show others. */
const sixteen: readonly Colour[] = [...colours(205, [0, 0, 0], [229, 229, 229]), ...colours(255, [127, 127, 127], [255, 255, 255])];

/** Black, the six colours with their parts at `level`, white. */
function colours(level: number, first: Colour, last: Colour): Colour[] {
  const part = (bits: number, bit: number) => (bits & bit ? level : 0);
  const between = [1, 2, 3, 4, 5, 6].map((bits): Colour => [part(bits, 1), part(bits, 2), part(bits, 4)]);
  return [first, ...between, last];
}

/** Of the 256 colours the cube of 6 × 6 × 6, or a grey of its 24. */
function nearestOf256(colour: Colour): number {
  const levels = [0, 95, 135, 175, 215, 255];
  const steps = colour.map((value) =>
    nearest(
      [value, 0, 0],
      levels.map((level): Colour => [level, 0, 0]),
    ),
  );
  const [r = 0, g = 0, b = 0] = steps;
  const cube: Colour = [levels[r] ?? 0, levels[g] ?? 0, levels[b] ?? 0];
  const step = Math.max(0, Math.min(23, Math.round(((colour[0] + colour[1] + colour[2]) / 3 - 8) / 10)));
  const level = 8 + 10 * step;
  return distance(colour, [level, level, level]) < distance(colour, cube) ? 232 + step : 16 + 36 * r + 6 * g + b;
}
