import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { linePlot } from '../src/plots/lines.ts';
import { matrixPlot } from '../src/plots/matrix.ts';
import { parallelPlot } from '../src/plots/parallel.ts';
import { rowPlot } from '../src/plots/rows.ts';
import { type Axis, drawable, scaleOf, tickLabel } from '../src/plots/scale.ts';
import { paretoFront, scatterPlot } from '../src/plots/scatter.ts';
import { cut, escapeMarkup, textWidth } from '../src/plots/svg.ts';

const value = fc.oneof(fc.double(), fc.constant(null), fc.nat(8), fc.constantFrom(0, 1, -1, 1e-300, Number.NaN, Number.POSITIVE_INFINITY));
const name = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('</script><svg onload=alert(1)>', '"><img src=x>', '&amp;', '\ud800'));
const axis: fc.Arbitrary<Axis> = fc.oneof(
  fc.record({ label: name, log: fc.boolean() }),
  fc.record({ label: name, choices: fc.array(name, { minLength: 1, maxLength: 9 }) }),
);
const text = { title: name, description: name };
type Place = Record<'x' | 'y', number>;
const points = fc.array(fc.record({ x: value, y: value }), { maxLength: 60 });
const estimate = fc.record({ value, low: value, high: value });

/** Every kind of plot, of anything. */
const anyPlot = fc.oneof(
  fc.record({ ...text, x: axis, y: axis, series: fc.array(fc.record({ name, points }), { maxLength: 8 }) }).map((plot) => linePlot(plot)),
  fc
    .record({
      ...text,
      x: axis,
      y: axis,
      kinds: fc.array(name, { minLength: 1, maxLength: 3 }),
      points: fc.array(fc.record({ x: value, y: value, label: name, name, kind: fc.nat(2) }), { maxLength: 20 }),
      line: fc.record({ name, points }),
    })
    .map((plot) => scatterPlot(plot)),
  fc
    .record({
      ...text,
      axes: fc.array(axis, { maxLength: 12 }),
      kinds: fc.array(name, { maxLength: 3 }),
      lines: fc.array(fc.record({ kind: fc.nat(2), name, values: fc.array(value, { maxLength: 12 }) }), { maxLength: 9 }),
    })
    .map((plot) => parallelPlot(plot)),
  fc
    .record({
      ...text,
      x: axis,
      names: fc.array(name, { minLength: 3, maxLength: 3 }),
      rows: fc.array(fc.record({ label: name, values: fc.array(estimate, { maxLength: 3 }) }), { maxLength: 50 }),
      mark: fc.constantFrom('BAR' as const, 'DOT' as const),
    })
    .map((plot) => rowPlot(plot)),
  fc
    .record({
      ...text,
      classes: fc.array(name, { maxLength: 25 }),
      counts: fc.array(fc.array(fc.integer(), { maxLength: 25 }), { maxLength: 25 }),
    })
    .map((plot) => matrixPlot(plot)),
);

describe('a plot of any data', () => {
  test('has numbers that a browser can draw, and stays inside its frame', () =>
    fc.assert(
      fc.property(anyPlot, (svg) => {
        const drawn = svg.replace(/>[^<]*</g, '><');
        expect(drawn).not.toMatch(/NaN|Infinity|undefined|null/);
        const coordinates = [...drawn.matchAll(/ (?:x|y|x1|x2|y1|y2|cx|cy|d|points|transform)="([^"]*)"/g)].flatMap(([, list = '']) =>
          [...list.matchAll(/-?\d+(?:\.\d+)?(?:e-?\d+)?/g)].map(Number),
        );
        expect(coordinates.filter((one) => !(Math.abs(one) <= 2000))).toEqual([]);
        expect(coordinates.filter((one) => !Number.isInteger(Math.round(one * 1e6) / 1e4))).toEqual([]);
      }),
      { numRuns: 400 },
    ));

  test('shows names as text, whoever chose them', () =>
    fc.assert(
      fc.property(anyPlot, (svg) => {
        const tags = [...svg.matchAll(/<\/?([^\s>/]*)/g)].map(([, tag]) => tag as string);
        const known = ['svg', 'title', 'desc', 'text', 'g', 'path', 'line', 'rect', 'polyline'];
        expect(tags.filter((tag) => !known.includes(tag))).toEqual([]);
        expect([...svg.matchAll(/<[^>]*>/g)].filter(([tag]) => / on\w+=/.test(tag))).toEqual([]);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: XML cannot hold them.
        expect(svg).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/);
        expect(svg.isWellFormed()).toBe(true);
      }),
      { numRuns: 400 },
    ));
});

test('a plot has a name and a description for those who cannot see it', () => {
  const svg = matrixPlot({
    title: 'Confusion <1>',
    description: 'Two classes.',
    classes: ['a', 'b'],
    counts: [
      [1, 2],
      [3, 4],
    ],
  });
  expect(svg).toMatch(/^<svg [^>]*role="img"[^>]*><title>Confusion &#60;1&#62;<\/title><desc>Two classes\.<\/desc>/);
});

test('the same data gives the same bytes', () => {
  const plot = () =>
    linePlot({
      title: 'Loss',
      description: '',
      x: { label: 'epoch' },
      y: { label: 'loss' },
      series: [{ name: 'a', points: [{ x: 1, y: 1 / 3 }] }],
    });
  expect(plot()).toBe(plot());
});

describe('a scale', () => {
  test('keeps the order of values, inside its range, with growing ticks', () =>
    fc.assert(
      fc.property(fc.array(fc.double({ noNaN: true }), { maxLength: 30 }), fc.boolean(), fc.boolean(), (values, log, isReversed) => {
        const range: [number, number] = isReversed ? [400, 20] : [20, 400];
        const axis = { label: '', log };
        const scale = scaleOf(values, axis, range);
        const shown = values.flatMap((one) => drawable(one, axis) ?? []).sort((a, b) => a - b);
        const places = shown.map((one) => (isReversed ? -scale(one) : scale(one)));
        expect(places.every((place, i) => i === 0 || place >= (places[i - 1] as number) - 1e-6)).toBe(true);
        expect(shown.map(scale).filter((place) => !(place >= 19.99 && place <= 400.01))).toEqual([]);
        const ticks = scale.ticks.map(({ at }) => (isReversed ? -at : at));
        expect(ticks.every((at, i) => i === 0 || at > (ticks[i - 1] as number))).toBe(true);
        expect(new Set(scale.ticks.map(({ label }) => label)).size).toBeGreaterThanOrEqual(Math.min(2, ticks.length));
      }),
      { numRuns: 500 },
    ));

  test.each([
    [0.1 + 0.2, '0.3'],
    [0, '0'],
    [1e-5, '1e-5'],
    [25_000_000, '2.5e+7'],
    [-1500, '-1500'],
  ])('writes %d as %s', (number, label) => expect(tickLabel(number)).toBe(label));
});

describe('a line of many points', () => {
  const points = Array.from({ length: 100_000 }, (_, i) => ({ x: i, y: i === 54_321 ? 1000 : Math.sin(i / 1000) }));
  const svg = linePlot({ title: '', description: '', x: { label: '' }, y: { label: '' }, series: [{ name: '', points }] });

  test('is reduced to what its pixels can show', () => expect(svg.length).toBeLessThan(40_000));
  test('keeps its peaks', () => expect(svg).toMatch(/,32[LZ]/));
});

test('a single point is seen, as a mark', () => {
  const series = [{ name: '', points: [{ x: 3, y: 5 }] }];
  expect(linePlot({ title: '', description: '', x: { label: '' }, y: { label: '' }, series })).toContain('plot-dot');
});

test('the Pareto front has every point that no other one beats, and no other, whichever way is better', () => {
  const place = fc.option(fc.integer({ max: 20, min: 0 }));
  const sign = fc.constantFrom(1 as const, -1 as const);
  fc.assert(
    fc.property(fc.array(fc.record({ x: place, y: place })), fc.record({ x: sign, y: sign }), (all, better) => {
      const whole = all.flatMap(({ x, y }) => (x === null || y === null ? [] : [{ x, y }]));
      const gains = (a: Place, b: Place) => [better.x * (a.x - b.x), better.y * (a.y - b.y)];
      const beats = (a: Place, b: Place) => gains(a, b).every((gain) => gain >= 0) && gains(a, b).some((gain) => gain > 0);
      const unbeaten = whole.filter((one) => !whole.some((other) => beats(other, one)));
      const key = ({ x, y }: { x: number | null; y: number | null }) => `${x} ${y}`;
      expect(new Set(paretoFront(all, better).map(key))).toEqual(new Set(unbeaten.map(key)));
    }),
  );
});

test('a name that is too long is cut, never in the middle of a character', () =>
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 20, max: 200 }), (name, width) => {
      expect(textWidth(cut(name, width))).toBeLessThanOrEqual(width);
      expect(escapeMarkup(cut(name.toWellFormed(), width)).isWellFormed()).toBe(true);
    }),
  ));
