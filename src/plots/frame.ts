/** What plots with two axes share: the room for the marks, the axes around it, the legend above it. */
import { symbol, symbolCircle, symbolDiamond, symbolSquare, symbolTriangle } from 'd3-shape';
import { type Axis, type Scale, scaleOf } from './scale.ts';
import { cut, element, plotWidth, rounded, textAt, textWidth } from './svg.ts';

/** The stylesheet has so many colours and dashes. */
export const seriesMax = 6;
export const seriesClass = (n: number): string => `s${n % seriesMax}`;

const shapes = [symbolCircle, symbolSquare, symbolTriangle, symbolDiamond];

/** A mark of series `n`: colours alone do not tell series apart for everybody. */
export const marker = (n: number, x: number, y: number, area = 30): string =>
  element('path', {
    class: `plot-dot ${seriesClass(n)}`,
    transform: `translate(${rounded(x)} ${rounded(y)})`,
    d: symbol(shapes[n % shapes.length], area).digits(2)() as string,
  });

const titleHeight = 24;
const legendLine = 17;

/** The legend, and where it ends. A single name needs none. */
export function legend(names: string[], sample: (n: number, x: number, y: number) => string): { markup: string[]; bottom: number } {
  if (names.length < 2) return { markup: [], bottom: titleHeight };
  let [x, y] = [4, titleHeight + 10];
  const markup = names.flatMap((name, n) => {
    const text = cut(name, plotWidth - 40);
    const width = 32 + textWidth(text);
    if (x > 4 && x + width > plotWidth) [x, y] = [4, y + legendLine];
    const entry = [sample(n, x, y - 4), textAt(x + 24, y, text)];
    x += width + 10;
    return entry;
  });
  return { markup, bottom: y + 8 };
}

export interface Frame {
  x: Scale;
  y: Scale;
  axes: string[];
}

const below = 40;

/** Axes around a room that begins at `top` and ends at `height`. */
export function frameOf(
  xs: Iterable<number | null>,
  ys: Iterable<number | null>,
  { x: xAxis, y: yAxis }: { x: Axis; y: Axis },
  { top, height }: { top: number; height: number },
): Frame {
  const bottom = height - below;
  const y = scaleOf(ys, yAxis, [bottom, top + 8]);
  const left = 26 + Math.max(...y.ticks.map(({ label }) => textWidth(label)), 6);
  const right = plotWidth - 14;
  const x = scaleOf(xs, xAxis, [left, right]);
  const axes = [
    ...y.ticks.flatMap(({ at, label }) => [
      element('line', { class: 'plot-grid', x1: left, x2: right, y1: at, y2: at }),
      textAt(left - 6, at + 4, label, { 'text-anchor': 'end' }),
    ]),
    xAxisOf(x, xAxis, { left, right, bottom }),
    textAt(0, 0, cut(yAxis.label, bottom - top), {
      'text-anchor': 'middle',
      transform: `translate(12 ${Math.round((top + bottom) / 2)}) rotate(-90)`,
    }),
  ];
  return { x, y, axes };
}

/** A line with ticks below, and its label. */
export function xAxisOf(x: Scale, { label }: Axis, { left, right, bottom }: { left: number; right: number; bottom: number }): string {
  let free = Number.NEGATIVE_INFINITY;
  const labels = x.ticks.flatMap((tick) => {
    const half = textWidth(tick.label) / 2;
    // A label that would touch the one before it is left out; its tick stays.
    const fits = tick.at - half > free;
    if (fits) free = tick.at + half + 6;
    return [
      element('line', { class: 'plot-axis', x1: tick.at, x2: tick.at, y1: bottom, y2: bottom + 4 }),
      ...(fits ? [textAt(Math.min(tick.at, plotWidth - half), bottom + 17, tick.label, { 'text-anchor': 'middle' })] : []),
    ];
  });
  return [
    element('line', { class: 'plot-axis', x1: left, x2: right, y1: bottom, y2: bottom }),
    ...labels,
    textAt((left + right) / 2, bottom + 34, cut(label, right - left + 40), { 'text-anchor': 'middle' }),
  ].join('');
}

export const noData = (height: number): string =>
  textAt(plotWidth / 2, height / 2, 'No data', { 'text-anchor': 'middle', class: 'plot-none' });
