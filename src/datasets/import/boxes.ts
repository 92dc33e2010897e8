import type { LabelledBox } from '../../jobs/manifest.ts';
import type { Annotations } from './layout.ts';

/**
 * How far a box may reach out of its image, in pixels: tools round. It is cut off there. A box around another shape may reach further, if its
 * centre is in the image.
 */
const tolerance = 1;

/** Coordinates are multiples of this part of a pixel: sums are exact, and both forms of a dataset give the same box. */
const unitsPerPixel = 1024;
const round = (pixels: number): number => Math.round(pixels * unitsPerPixel) / unitsPerPixel;

export interface CheckedBoxes {
  /** In pixels of the upright image, sorted, each once. */
  boxes: LabelledBox[];
  clipped: number;
  duplicates: number;
  /** Of those without area inside the image, which are left out. */
  withoutArea: number;
  /** Why boxes cannot be accepted, with their places. */
  problems: string[];
}

/**
 * The boxes of an image of this upright size in pixels. Annotations are about the upright image, because the tools that they are drawn
 * with turn images by the EXIF orientation; a file that declares another size than the upright one is refused, never turned.
 */
export function checkBoxes({ boxes: raw, unit, counted, size }: Annotations, image: { width: number; height: number }): CheckedBoxes {
  const { width, height } = image;
  const result: CheckedBoxes = { boxes: [], clipped: 0, duplicates: 0, withoutArea: 0, problems: [] };
  if (size && (size.width !== width || size.height !== height)) {
    const turned = size.width === height && size.height === width ? ' when its EXIF orientation is applied, as boxes need it' : '';
    result.problems.push(`says ${size.width} × ${size.height} pixels, but the image has ${width} × ${height}${turned}`);
    return result;
  }
  const [scaleX, scaleY] = unit === 'SHARE' ? [width, height] : [1, 1];
  const seen = new Set<string>();
  for (const box of raw) {
    const [left, top] = [box.x * scaleX, box.y * scaleY];
    const [right, bottom] = [left + box.width * scaleX, top + box.height * scaleY];
    const outside = Math.max(-left, -top, right - width, bottom - height);
    const [x, y] = [round(Math.max(0, left)), round(Math.max(0, top))];
    const checked = {
      label: box.label,
      x,
      y,
      width: round(Math.min(width, right)) - x,
      height: round(Math.min(height, bottom)) - y,
      ...(box.crowd && { crowd: box.crowd }),
    };
    const key = JSON.stringify(checked);
    const isCentred = left + right > 0 && left + right < 2 * width && top + bottom > 0 && top + bottom < 2 * height;
    // Written so that a NaN is refused too. What lies outside by less than half a unit is not worth a word.
    if (!(outside <= tolerance || (box.around && isCentred))) {
      result.problems.push(`${counted} ${box.at}: the box reaches ${outside.toFixed(1)} pixels out of the image of ${width} × ${height}`);
    } else if (!(checked.width > 0 && checked.height > 0)) result.withoutArea += 1;
    else if (seen.has(key)) result.duplicates += 1;
    else {
      seen.add(key);
      if (outside > 0.5 / unitsPerPixel) result.clipped += 1;
      result.boxes.push(checked);
    }
  }
  result.boxes.sort(
    (a, b) =>
      a.label - b.label ||
      a.x - b.x ||
      a.y - b.y ||
      a.width - b.width ||
      a.height - b.height ||
      Number(a.crowd ?? 0) - Number(b.crowd ?? 0),
  );
  return result;
}
