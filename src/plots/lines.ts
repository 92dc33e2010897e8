import { bisector } from 'd3-array';
import { line } from 'd3-shape';
import { frameOf, legend, marker, noData, seriesClass } from './frame.ts';
import { type Axis, drawable } from './scale.ts';
import { element, type PlotText, plot, plotWidth } from './svg.ts';

export interface Point {
  x: number | null;
  /** Null breaks the line. */
  y: number | null;
}

export interface Series {
  name: string;
  points: readonly Point[];
}

export interface LinePlot extends PlotText {
  x: Axis;
  y: Axis;
  series: readonly Series[];
  /** Whether the points of a curve of few are marked. */
  marks?: boolean;
}

/** Below the legend. */
const room = 228;
/** Beyond so many points a line is reduced; up to so many each point is marked. */
const pointsMax = 2 * plotWidth;
const markedMax = 40;

/** Curves over one axis, such as the losses of a training. */
export function linePlot({ x: xAxis, y: yAxis, series, marks = true, ...text }: LinePlot): string {
  const drawn = series.map(({ points }) => reduced(points.map(({ x, y }) => ({ x: drawable(x, xAxis), y: drawable(y, yAxis) }))));
  const all = drawn.flat().filter(isWhole);
  const { markup, bottom } = legend(
    series.map(({ name }) => name),
    (n, x, y) => element('path', { class: `plot-line ${seriesClass(n)}`, d: `M${x},${y}h18` }) + marker(n, x + 9, y),
  );
  const height = bottom + room;
  const { x, y, axes } = frameOf(
    all.map((point) => point.x),
    all.map((point) => point.y),
    { x: xAxis, y: yAxis },
    { top: bottom, height },
  );
  const path = line<Point>(
    (point) => x(point.x as number),
    (point) => y(point.y as number),
  )
    .defined(isWhole)
    .digits(2);
  const curves = drawn.flatMap((points, n) => [
    element('path', { class: `plot-line ${seriesClass(n)}`, d: path(points) ?? '' }),
    ...((marks && points.length <= markedMax) || points.length === 1
      ? points.filter(isWhole).map((point) => marker(n, x(point.x), y(point.y)))
      : []),
  ]);
  return plot(text, height, [...markup, ...axes, ...curves, ...(all.length === 0 ? [noData(height)] : [])]);
}

const isWhole = (point: Point): point is { x: number; y: number } => point.x !== null && point.y !== null;

/** Of many points the first, the smallest, the largest and the last of each column of pixels: the line looks the same, without its gaps. */
function reduced(points: Point[]): Point[] {
  if (points.length <= pointsMax) return points;
  const whole = points.filter(isWhole).sort((a, b) => a.x - b.x);
  const [first, last] = [whole[0], whole.at(-1)];
  if (!first || !last) return [];
  const { left } = bisector((point: { x: number }) => point.x);
  const width = (last.x - first.x) / plotWidth;
  const columns = Array.from({ length: plotWidth }, (_, i) =>
    whole.slice(left(whole, first.x + i * width), i + 1 === plotWidth ? undefined : left(whole, first.x + (i + 1) * width)),
  );
  return columns.flatMap((column) => {
    const low = column.reduce((a, b) => (b.y < a.y ? b : a), column[0] as (typeof whole)[number]);
    const high = column.reduce((a, b) => (b.y > a.y ? b : a), column[0] as (typeof whole)[number]);
    const kept = new Set([column[0], low, high, column.at(-1)]);
    return column.filter((point) => kept.has(point));
  });
}
