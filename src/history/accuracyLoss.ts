import { accuracyDropUsual, type accuracyMetrics } from '../benchmark/context.ts';

interface Measured {
  metric: (typeof accuracyMetrics)[number];
  value: number;
  images: number;
}

/** Of the normal distribution, for intervals of 95 %. */
const z = 1.96;

/** The interval of a share: Wilson (1927). */
function shareInterval({ value, images }: Measured): { low: number; high: number } {
  const middle = value + z ** 2 / (2 * images);
  const reach = z * Math.sqrt((value * (1 - value)) / images + z ** 2 / (4 * images ** 2));
  const scale = 1 + z ** 2 / images;
  return { low: (middle - reach) / scale, high: (middle + reach) / scale };
}

/**
 * By how much the accuracy has fallen, with the interval of the difference; null where it is not decided. It has to fall by more than a
 * benchmark's choice may lose. For classifiers all of the interval must also be below 0: that of two independent shares (Newcombe 1998,
 * method 10), which is wider than one of the same images needs to be. What is stored of a mean average precision gives no interval.
 */
export function accuracyLoss(before: Measured, after: Measured): { low: number | null; high: number | null } | null {
  if (before.metric !== after.metric || before.value - after.value <= accuracyDropUsual) return null;
  if (after.metric === 'MAP50_95') return { low: null, high: null };
  const [a, b] = [shareInterval(before), shareInterval(after)];
  const difference = after.value - before.value;
  const low = difference - Math.hypot(after.value - b.low, a.high - before.value);
  const high = difference + Math.hypot(b.high - after.value, before.value - a.low);
  return high < 0 ? { low, high } : null;
}
