import { frameOf, legend, marker, noData } from './frame.ts';
import { type Axis, drawable } from './scale.ts';
import { element, escapeMarkup, type PlotText, plot, plotWidth, rounded, textAt, textWidth } from './svg.ts';

interface Place {
  x: number | null;
  y: number | null;
}

export interface ScatterPoint extends Place {
  /** Short: it stands beside the point. */
  label: string;
  /** What a pointer over it shows. */
  name: string;
  /** Index into `kinds`. */
  kind: number;
}

export interface ScatterPlot extends PlotText {
  x: Axis;
  y: Axis;
  /** Names of the kinds of points for the legend. Those of the second kind are larger, and their labels come first. */
  kinds: readonly string[];
  points: readonly ScatterPoint[];
  /** Of fewer than two points nothing is drawn. */
  line?: { name: string; points: readonly Place[] };
}

/** Below the legend. */
const room = 228;

/** Points of two quantities, and a line through some places, such as the best of the points. */
export function scatterPlot({ x: xAxis, y: yAxis, points, kinds, line, ...text }: ScatterPlot): string {
  const placed = <T extends Place>(places: readonly T[]) =>
    places.flatMap((one) => {
      const [x, y] = [drawable(one.x, xAxis), drawable(one.y, yAxis)];
      return x === null || y === null ? [] : [{ ...one, x, y }];
    });
  const shown = placed(points);
  const through = placed(line?.points ?? []);
  const hasLine = through.length > 1;
  const { markup, bottom } = legend([...kinds, ...(line && hasLine ? [line.name] : [])], (n, left, at) =>
    n === kinds.length
      ? element('path', { class: 'plot-front', d: `M${left},${at}h18` })
      : marker(n, left + 9, at, n === 1 ? largeArea : smallArea),
  );
  const height = bottom + room;
  const all = [...shown, ...through];
  const { x, y, axes } = frameOf(
    all.map((point) => point.x),
    all.map((point) => point.y),
    { x: xAxis, y: yAxis },
    { top: bottom, height },
  );
  const at = shown.map((point) => ({ ...point, x: x(point.x), y: y(point.y) }));
  return plot(text, height, [
    ...markup,
    ...axes,
    ...(hasLine
      ? [element('polyline', { class: 'plot-front', points: through.map((one) => `${rounded(x(one.x))},${rounded(y(one.y))}`).join(' ') })]
      : []),
    ...at
      .toSorted((a, b) => Number(a.kind === 1) - Number(b.kind === 1))
      .map((point) =>
        element(
          'g',
          {},
          element('title', {}, escapeMarkup(point.name)),
          marker(point.kind, point.x, point.y, point.kind === 1 ? largeArea : smallArea),
        ),
      ),
    ...labelsOf(at, bottom, height),
    ...(shown.length === 0 ? [noData(height)] : []),
  ]);
}

const smallArea = 45;
const largeArea = 90;

/** The points that no other one beats in both quantities, in the order of `x`; 1 where more is better, -1 where less is. */
export function paretoFront<T extends Place>(points: readonly T[], { x, y }: { x: 1 | -1; y: 1 | -1 }): T[] {
  const gains = points.flatMap((point) => (point.x === null || point.y === null ? [] : [{ point, x: x * point.x, y: y * point.y }]));
  const front: typeof gains = [];
  for (const one of gains.sort((a, b) => b.x - a.x || b.y - a.y)) {
    if (one.y > (front.at(-1)?.y ?? Number.NEGATIVE_INFINITY)) front.push(one);
  }
  return front.map(({ point }) => point);
}

/** Each label beside its point where it covers no other label and no point; where there is no room, the pointer shows the name. */
function labelsOf(points: readonly { x: number; y: number; label: string; kind: number }[], top: number, height: number): string[] {
  const taken = points.map(({ x, y }) => ({ left: x - 4, right: x + 4, top: y - 4, bottom: y + 4 }));
  return points
    .toSorted((a, b) => Number(b.kind === 1) - Number(a.kind === 1))
    .flatMap(({ x, y, label }) => {
      if (label === '') return [];
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
