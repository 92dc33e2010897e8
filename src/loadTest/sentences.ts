/** What a load test says in words. */
import { highestRateOf, isClientLate, isInDeadline, type RateResult, shareInDeadline } from './rates.ts';
import type { LoadTest } from './tables.ts';

const number = (value: number): string => String(Number(value.toPrecision(3)));
const listed = (rates: readonly RateResult[]): string => rates.map(({ rate }) => number(rate)).join(', ');

/** First how much traffic the deployment bears, then what makes the figures less certain. */
export function sentencesOf(
  { deadlineMs, capacityPerSecond }: Pick<LoadTest, 'deadlineMs' | 'capacityPerSecond'>,
  rates: readonly RateResult[],
): string[] {
  const percent = 100 * shareInDeadline;
  const highest = highestRateOf(rates);
  const missed = rates.filter((one) => highest !== null && one.arrivals > 0 && one.rate < highest && !isInDeadline(one));
  const late = rates.filter(isClientLate);
  const beside = rates.filter(({ otherRequests }) => otherRequests);
  const few = rates.filter(({ latency }) => latency.p99.kind === 'INSUFFICIENT');
  return [
    highest === null
      ? `At no rate were ${percent} % of the requests answered within ${number(deadlineMs)} ms.`
      : `At ${number(highest)} requests a second, ${percent} % or more are answered within ${number(deadlineMs)} ms; at no higher rate that was driven.`,
    `Asked for as much as it could do, it answered ${number(capacityPerSecond)} requests a second.`,
    ...(missed.length > 0
      ? [
          `At ${listed(missed)} requests a second, which is less, they were not: something disturbed the machine, or there were too few requests.`,
        ]
      : []),
    ...(late.length > 0
      ? [
          `The load generator was late at ${listed(late)} requests a second: the latencies there are too long. Use a machine with more free cores.`,
        ]
      : []),
    ...(beside.length > 0
      ? [`The host answered requests of others at ${listed(beside)} requests a second: they took a part of the machine.`]
      : []),
    ...(few.length > 0 ? [`There are too few requests for P99 at ${listed(few)} requests a second: drive each rate for longer.`] : []),
  ];
}
