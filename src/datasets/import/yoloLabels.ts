/** Label files of the form YOLO: a line `<class> <centre x> <centre y> <width> <height>` or `<class> <x1> <y1> <x2> <y2> <x3> <y3> …`. */
import { boxesPerImageMax } from '../../jobs/manifest.ts';
import type { RawBox } from './layout.ts';
import { plural, printable } from './problems.ts';
import { boxAround } from './reading.ts';

const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

export interface LabelFile {
  boxes: RawBox[];
  /** Lines that are polygons, which became the box around them. */
  polygons: number;
}

/** `keyPoints`: numbers behind each box. Gives what is wrong to `add`. */
export function parseLabels(
  text: string,
  { classes, keyPoints }: { classes: number; keyPoints: number | null },
  add: (reason: string) => void,
): LabelFile {
  const result: LabelFile = { boxes: [], polygons: 0 };
  for (const [i, line] of text.split('\n').entries()) {
    const words = line.trim().split(/\s+/);
    if (words[0] === '') continue;
    const problem = (reason: string) => add(`line ${i + 1}: ${reason}`);
    const [label = -1, ...values] = words.map((word) => (number.test(word) ? Number(word) : Number.NaN));
    const isBox = values.length === 4 || values.length === 4 + (keyPoints ?? Number.NaN);
    if (!isBox && (values.length < 6 || values.length % 2 === 1)) {
      problem(`has ${plural(words.length, 'number')}, but a box is <class> <centre x> <centre y> <width> <height>`);
    } else if (!Number.isInteger(label) || label < 0 || label >= classes) {
      problem(`the class ${printable(words[0] as string)} is none of 0 to ${classes - 1}`);
    } else if (!values.every(Number.isFinite)) problem('has something that is not a number');
    else if (isBox) {
      const [x, y, width, height] = values as [number, number, number, number];
      if (width < 0 || height < 0) problem('the width and the height of a box are not below 0');
      else result.boxes.push({ label, x: x - width / 2, y: y - height / 2, width, height, at: i + 1 });
    } else {
      result.polygons += 1;
      result.boxes.push({ label, ...boxAround(values), around: true, at: i + 1 });
    }
    if (result.boxes.length > boxesPerImageMax) {
      add(`has more than ${boxesPerImageMax} boxes`);
      return { boxes: [], polygons: 0 };
    }
  }
  return result;
}
