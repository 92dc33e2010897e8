/** What a regression says in words: rendered from its facts when somebody reads it. */
import type { accuracyMetrics } from '../benchmark/context.ts';
import { engines } from '../engine/engines.ts';
import type { Difference, Setting } from '../reports/comparison.ts';
import { accuracyText, ms, number, plural } from '../reports/format.ts';
import type { RegressionRow } from './tables.ts';

interface Facts {
  /** Nanoseconds of a latency, or an accuracy from 0 to 1. */
  before: number;
  after: number;
  /** Interval of after ÷ before for a latency, of after − before for an accuracy; null where there is none. */
  low: number | null;
  high: number | null;
  /** Names of the deployments that the earlier version served. */
  serves: string[];
}

export interface LatencyFacts extends Facts {
  setting: Setting;
  /** Whether the two were measured in two benchmarks, and what else was not the same in them. */
  isApart: boolean;
  differences: Difference[];
}

export interface AccuracyFacts extends Facts {
  metric: (typeof accuracyMetrics)[number];
  images: number;
}

export type RegressionFacts = LatencyFacts | AccuracyFacts;

type Named = { name: string; number: number } | undefined;

export function regressionText(version: Named, against: Named, metric: RegressionRow['metric'], facts: RegressionFacts): string {
  const serves = facts.serves.length > 0 ? `, which serves ${facts.serves.join(', ')}` : '';
  const earlier = `version ${against?.number}${serves}`;
  const later = `${version?.name} version ${version?.number}`;
  return 'setting' in facts ? latencyText(later, earlier, metric, facts) : accuracyTextOf(later, earlier, facts);
}

function latencyText(later: string, earlier: string, metric: RegressionRow['metric'], facts: LatencyFacts): string {
  const { before, after, low, high, setting, isApart, differences } = facts;
  const times = low === null || high === null ? '' : ` (${number(low)} to ${number(high)} times as long)`;
  const { engine, batchSize, intraOpThreads, instances } = setting;
  const where = `${engines[engine].title}, batch ${batchSize}, ${plural(intraOpThreads, 'thread')}${instances > 1 ? `, ${instances} instances` : ''}`;
  const changed = differences.map(({ name, before, after }) => `${name} ${before} → ${after}`).join(', ');
  return (
    `${later} is slower than ${earlier}: ${metric} ${ms(after)} instead of ${ms(before)}${times}, on the same machine with ${where}.` +
    (isApart ? ' They were measured in two benchmarks: measure both versions in one to be sure.' : '') +
    (changed === '' ? '' : ` Something else changed as well: ${changed}.`)
  );
}

function accuracyTextOf(later: string, earlier: string, { before, after, low, high, metric, images }: AccuracyFacts): string {
  const interval =
    low === null || high === null ? '' : ` (${number(-100 * high)} to ${number(-100 * low)} points less, with 95 % confidence)`;
  const text = (value: number) => accuracyText({ metric, value });
  return `${later} is less accurate than ${earlier}: ${text(after)} instead of ${text(before)}${interval}, on the same ${images} images.`;
}
