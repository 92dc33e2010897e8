import { frameOf, legend, marker, noData } from './frame.ts';
import { type Axis, drawable } from './scale.ts';
import { element, escapeMarkup, type PlotText, plot, plotWidth, rounded, textAt, textWidth } from './svg.ts';

export interface ScatterPoint {
  x: number | null;
  y: number | null;
  /** Short: it stands beside the point. */
  label: string;
  /** What a pointer over it shows. */
  name: string;
  chosen?: boolean;
}

export interface ScatterPlot extends PlotText {
  /** Less is better. */
  x: Axis;
  /** More is better. */
  y: Axis;
  points: readonly ScatterPoint[];
  /** Name of the chosen points in the legend; empty where none is. */
  chosen: string;
}

/** Below the legend. */
const room = 228;

interface Placed {
  x: number;
  y: number;
}

/** Points of two quantities, with a line through those that no other one beats in both. */
export function scatterPlot({ x: xAxis, y: yAxis, points, chosen, ...text }: ScatterPlot): string {
  const shown = points.flatMap((point) => {
    const [x, y] = [drawable(point.x, xAxis), drawable(point.y, yAxis)];
    return x === null || y === null ? [] : [{ ...point, x, y }];
  });
  const front = paretoFront(shown);
  const names = ['measured', ...(chosen === '' ? [] : [chosen]), ...(front.length > 1 ? ['not beaten in both'] : [])];
  const isFront = (n: number) => names[n] === 'not beaten in both';
  const { markup, bottom } = legend(names, (n, left, at) =>
    isFront(n) ? element('path', { class: 'plot-front', d: `M${left},${at}h18` }) : marker(n, left + 9, at, n === 1 ? 90 : 45),
  );
  const height = bottom + room;
  const { x, y, axes } = frameOf(
    shown.map((point) => point.x),
    shown.map((point) => point.y),
    { x: xAxis, y: yAxis },
    { top: bottom, height },
  );
  const at = shown.map((point) => ({ ...point, x: x(point.x), y: y(point.y) }));
  return plot(text, height, [
    ...markup,
    ...axes,
    ...(front.length > 1
      ? [element('polyline', { class: 'plot-front', points: front.map((one) => `${rounded(x(one.x))},${rounded(y(one.y))}`).join(' ') })]
      : []),
    ...at.map((point) =>
      element(
        'g',
        {},
        element('title', {}, escapeMarkup(point.name)),
        marker(point.chosen ? 1 : 0, point.x, point.y, point.chosen ? 90 : 45),
      ),
    ),
    ...labelsOf(at, bottom, height),
    ...(shown.length === 0 ? [noData(height)] : []),
  ]);
}

/** The points that no other one beats: with a smaller or the same `x`, more `y`. By growing `x`. */
export function paretoFront<T extends Placed>(points: readonly T[]): T[] {
  const front: T[] = [];
  for (const point of points.toSorted((a, b) => a.x - b.x || b.y - a.y)) {
    if (point.y > (front.at(-1)?.y ?? Number.NEGATIVE_INFINITY)) front.push(point);
  }
  return front;
}

/** Each label beside its point where it covers no other label and no point; where there is no room, the pointer shows the name. */
function labelsOf(points: readonly (Placed & { label: string; chosen?: boolean })[], top: number, height: number): string[] {
  const taken = points.map(({ x, y }) => ({ left: x - 4, right: x + 4, top: y - 4, bottom: y + 4 }));
  return points
    .toSorted((a, b) => Number(b.chosen ?? false) - Number(a.chosen ?? false))
    .flatMap(({ x, y, label }) => {
      const width = textWidth(label);
      const places = [
        [x + 8, y + 4],
        [x - 8 - width, y + 4],
        [x - width / 2, y - 9],
        [x - width / 2, y + 18],
      ] as const;
      for (const [left, base] of places) {
        const box = { left, right: left + width, top: base - 10, bottom: base + 2 };
        const isFree = !taken.some(
          (other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top,
        );
        if (!isFree || box.left < 40 || box.right > plotWidth - 4 || box.top < top || box.bottom > height - 40) continue;
        taken.push(box);
        return [textAt(left, base, label)];
      }
      return [];
    });
}
