/**
 * Which layout the outputs of a detector have: told from their shapes where only one reading is possible, else said by the user, never
 * guessed. The trainer's `detection/layouts.py` decides the same: `test/fixtures/detections/layouts.json` holds both to it.
 */
import { OutputLayout } from './spec.ts';

/** A dimension that is no number is open. */
type Shape = readonly (number | string)[];

/** The outputs do not have the layout, or do not say which they have. */
export class LayoutError extends Error {}

/** Whether shapes have a layout, as far as they are known; `classes` is null where nobody has named any. */
const fits: Record<OutputLayout, (shapes: readonly Shape[], classes: number | null) => boolean> = {
  BOXES_SCORES: ([boxes, scores, ...more], classes) =>
    more.length === 0 && like(boxes, [null, null, 4]) && like(scores, [null, null, classes]),
  // A square output would fit both ways round.
  CENTRES_FIRST: ([rows, ...more], classes) =>
    more.length === 0 && like(rows, [null, classes && 4 + classes, null]) && rows?.[2] !== (classes === null ? rows?.[1] : 4 + classes),
  OBJECTNESS: ([rows, ...more], classes) => more.length === 0 && like(rows, [null, null, classes && 5 + classes]),
  SUPPRESSED: ([rows, ...more]) => more.length === 0 && like(rows, [null, null, 6]),
};

/** Whether every size that both know is the same. */
function like(shape: Shape | undefined, wanted: readonly (number | null)[]): boolean {
  return shape?.length === wanted.length && shape.every((dim, i) => typeof dim === 'string' || wanted[i] === null || dim === wanted[i]);
}

/**
 * The layout of outputs of these shapes. `said`: what the user says, or what a file of ours is; it is only checked. Throws a LayoutError
 * where the shapes contradict it, or leave more than one reading.
 */
export function chooseLayout(shapes: readonly Shape[], classes: number | null, said?: OutputLayout): OutputLayout {
  const listed = shapes.map((shape) => `[${shape.join(', ')}]`).join(', ');
  if (said) {
    if (fits[said](shapes, classes)) return said;
    throw new LayoutError(`The outputs ${listed} do not have the layout ${said}${classes === null ? '' : ` of ${classes} classes`}.`);
  }
  const [only, ...others] = shapes.length === 1 ? readingsOf(shapes[0] as Shape, classes) : [];
  if (only && only !== 'TRANSPOSED' && others.length === 0) return only;
  const possible = OutputLayout.options.filter((layout) => fits[layout](shapes, classes));
  if (possible.length === 0)
    throw new LayoutError(
      `The outputs ${listed} have none of the layouts that predict reads: ${OutputLayout.options.join(', ')}. Export the model with one of ` +
        'them, or leave `preprocess` out and send tensors to /infer.',
    );
  throw new LayoutError(
    `The outputs ${listed} do not say how they hold boxes and the scores of ${classes ?? 'an unknown number of'} classes: ` +
      `say \`outputLayout\`: ${possible.join(' or ')}.`,
  );
}

/** What a single output can be by its numbers. TRANSPOSED, rows of a place without objectness, is none of the layouts. */
function readingsOf([, rows, columns, ...more]: Shape, classes: number | null): (OutputLayout | 'TRANSPOSED')[] {
  if (columns === undefined || more.length > 0) return [];
  // Without a number of classes: a model has fewer of them than places.
  if (classes === null)
    return typeof rows === 'number' && typeof columns === 'number' && rows > 4 && rows < columns ? ['CENTRES_FIRST'] : [];
  const found: (OutputLayout | 'TRANSPOSED')[] = [];
  if (rows === 4 + classes) found.push('CENTRES_FIRST');
  if (columns === 4 + classes) found.push('TRANSPOSED');
  if (columns === 5 + classes) found.push('OBJECTNESS');
  if (columns === 6) found.push('SUPPRESSED');
  return found;
}
