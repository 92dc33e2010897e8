/** From values to coordinates, with the ticks of an axis. */
import { extent, ticks } from 'd3-array';
import { scaleLinear, scaleLog } from 'd3-scale';

export interface Axis {
  /** What it measures, with the unit. */
  label: string;
  log?: boolean;
  /** The values that the axis shows at least. */
  include?: number[];
  /** Of an axis of choices: the values are indices into these. */
  choices?: readonly string[];
}

export interface Scale {
  (value: number): number;
  ticks: { at: number; label: string }[];
}

const largest = 1e15;
const smallest = 1e-12;

/**
 * What is drawn of a value: null for no number, for what no measurement reaches, on a logarithmic axis for what is not positive, and on one of
 * choices for what is none of them.
 */
export function drawable(value: number | null | undefined, { log = false, choices }: Axis): number | null {
  if (choices) return value != null && choices[value] !== undefined ? value : null;
  if (value == null || !Number.isFinite(value) || Math.abs(value) > largest) return null;
  if (Math.abs(value) < smallest) return log ? null : 0;
  return log && value < 0 ? null : value;
}

/** `range` are the coordinates of the smallest and of the largest value. */
export function scaleOf(values: Iterable<number | null>, axis: Axis, range: [number, number]): Scale {
  if (axis.choices) return scaleOfChoices(axis.choices, range);
  const shown = [...values, ...(axis.include ?? [])].flatMap((value) => drawable(value, axis) ?? []);
  const [low, high] = widened(extent(shown), axis.log ?? false);
  const count = Math.max(2, Math.round(Math.abs(range[1] - range[0]) / (range[1] > range[0] ? 65 : 40)));
  const scale = axis.log ? scaleLog([low, high], range) : scaleLinear([low, high], range).nice(count);
  const marked = axis.log ? logTicks(low, high, count) : scale.ticks(count);
  return Object.assign((value: number) => scale(value), {
    ticks: marked.map((value) => ({ at: scale(value), label: tickLabel(value) })),
  });
}

function scaleOfChoices(choices: readonly string[], range: [number, number]): Scale {
  const scale = scaleLinear([-0.5, choices.length - 0.5], range);
  return Object.assign((value: number) => scale(value), { ticks: choices.map((label, n) => ({ at: scale(n), label })) });
}

/** One value alone gets room around it. */
function widened([low, high]: [number, number] | [undefined, undefined], log: boolean): [number, number] {
  if (low === undefined) return log ? [1, 10] : [0, 1];
  const narrow = high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  if (log) return narrow ? [low / 2, high * 2] : [low / 1.05, high * 1.05];
  if (!narrow) return [low, high];
  return low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
}

/** 1, 2 and 5 of each decade, or 1 only; within one decade as on a linear axis. */
function logTicks(low: number, high: number, count: number): number[] {
  const first = Math.floor(Math.log10(low));
  const decades = Math.ceil(Math.log10(high)) - first + 1;
  const all = Array.from({ length: decades }, (_, i) => first + i);
  const steps = [
    all.flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`))),
    all.map((power) => Number(`1e${power}`)),
    all.filter((_, i) => i % Math.ceil(decades / count) === 0).map((power) => Number(`1e${power}`)),
  ].map((marks) => marks.filter((value) => value >= low && value <= high));
  const [finest = []] = steps;
  if (finest.length < 3) return ticks(low, high, count).filter((value) => value >= low && value <= high);
  return steps.find((marks) => marks.length <= 1.7 * count) ?? (steps.at(-1) as number[]);
}

export function tickLabel(value: number): string {
  const short = Number(value.toPrecision(6));
  const size = Math.abs(short);
  return size !== 0 && (size >= 1e6 || size < 1e-4) ? short.toExponential() : String(short);
}
