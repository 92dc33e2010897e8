/** What a load test has measured at each rate, and what that says. Pure functions. */
import { z } from 'zod';
import { type Percentile, percentileOf, percentiles } from '../benchmark/statistics.ts';
import type { Driven } from './drive.ts';

const count = z.int().min(0);
const ns = z.int().min(0);
const Measured: z.ZodType<Percentile> = z.object({
  kind: z.enum(['EXACT', 'AT_MOST', 'INSUFFICIENT']),
  ns: ns.nullable(),
  lowNs: ns.nullable(),
  highNs: ns.nullable(),
});

export const RateResult = z.object({
  /** Requests a second that were asked for. */
  rate: z.number(),
  /** Requests that were due in the window, and what became of them. */
  arrivals: count,
  answered: count,
  /** 429: refused at once. */
  overloaded: count,
  /** 503: the host was stopping, or had no model. */
  unavailable: count,
  /** 504: admitted, and not answered by the deadline. */
  expired: count,
  /** 500, or the connection ended without an answer. */
  failed: count,
  /** Too many others had no answer yet. */
  notSent: count,
  /** Answered by the end of the window, each second. */
  answeredPerSecond: z.number(),
  /** Answered within the deadline, counted from the due time. */
  inDeadline: count,
  latency: z.object({ p50: Measured, p95: Measured, p99: Measured }),
  /** P99 of how long after its due time a request was sent; null without requests. */
  sendDelayNs: ns.nullable(),
  /** Processor time of the load generator, as a number of cores. */
  clientCores: z.number().min(0),
  /** Requests of others that the host answered meanwhile; null where it did not say. */
  otherRequests: count.nullable(),
});
export type RateResult = z.infer<typeof RateResult>;

/** What the child stores after each rate. */
export const LoadTestFile = z.object({
  bootId: z.string().nullable(),
  codeVersion: z.string(),
  revision: z.int(),
  /** Requests a second that the host answered when it was asked for as many as it could. */
  capacityPerSecond: z.number(),
  rates: z.array(RateResult),
});
export type LoadTestFile = z.infer<typeof LoadTestFile>;

/** Of the requests, those that must be answered within the deadline: then P99 is, and a request without an answer counts as late. */
export const shareInDeadline = 0.99;

/** Shares of the capacity at which a deployment is driven when nobody names rates. */
const sharesOfCapacity = [0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.2];

export const ratesCount = sharesOfCapacity.length;

export const ratesOf = (capacityPerSecond: number): number[] =>
  sharesOfCapacity.map((share) => Number((share * capacityPerSecond).toPrecision(3)));

/** `window`: its length, and the deadline. */
export function summarizeRate(
  { dueMs, sentMs, latencyMs, status }: Driven,
  { rate, seconds, deadlineMs }: { rate: number; seconds: number; deadlineMs: number },
  beside: Pick<RateResult, 'clientCores' | 'otherRequests'>,
): RateResult {
  const isAnswer = (_: number, n: number) => status[n] === 200;
  const having = (...wanted: number[]) => status.reduce((sum, one) => sum + (wanted.includes(one) ? 1 : 0), 0);
  const sorted = latencyMs.filter(isAnswer).map(toNs).sort();
  const [overloaded, unavailable, expired, notSent] = [having(429), having(503), having(504), having(-1)] as const;
  const delays = sentMs
    .map((ms, n) => ms - (dueMs[n] as number))
    .filter((ms) => !Number.isNaN(ms))
    .map(toNs)
    .sort();
  return {
    rate,
    arrivals: dueMs.length,
    answered: sorted.length,
    overloaded,
    unavailable,
    expired,
    failed: dueMs.length - sorted.length - overloaded - unavailable - expired - notSent,
    notSent,
    answeredPerSecond: dueMs.filter((ms, n) => isAnswer(ms, n) && ms + (latencyMs[n] as number) <= 1000 * seconds).length / seconds,
    inDeadline: sorted.filter((latency) => latency <= toNs(deadlineMs)).length,
    latency: {
      p50: percentileOf(sorted, percentiles.p50),
      p95: percentileOf(sorted, percentiles.p95),
      p99: percentileOf(sorted, percentiles.p99),
    },
    sendDelayNs: delays[Math.ceil(0.99 * delays.length) - 1] ?? null,
    ...beside,
  };
}

const toNs = (ms: number): number => Math.max(0, Math.round(1e6 * ms));

export const isInDeadline = ({ arrivals, inDeadline }: RateResult): boolean => arrivals > 0 && inDeadline >= shareInDeadline * arrivals;

/** The highest rate at which nearly all requests were answered within the deadline; null where there was none. */
export function highestRateOf(rates: readonly RateResult[]): number | null {
  const borne = rates.filter(isInDeadline).map(({ rate }) => rate);
  return borne.length > 0 ? Math.max(...borne) : null;
}

/** Whether the load generator was so late that the latencies say more about it than about the host: they count from the due times. */
export function isClientLate({ sendDelayNs, latency: { p50 } }: RateResult): boolean {
  return sendDelayNs !== null && sendDelayNs > Math.max(1e6, 0.1 * (p50.ns ?? 0));
}
