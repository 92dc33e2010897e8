/** The report of a load test: how the latency grows with the rate, and what became of the requests. */
import type { Percentile, PercentileName } from '../../benchmark/statistics.ts';
import { sentencesOf } from '../../loadTest/sentences.ts';
import { opaqueId } from '../../naming.ts';
import { linePlot } from '../../plots/lines.ts';
import { ms, number, percentileTitles } from '../format.ts';
import type { Value } from '../forms/csv.ts';
import { none, type ReportDocument, type Section } from '../forms/document.ts';
import type { LoadTestFacts, RateFacts } from './facts.ts';
import { attemptSection, endText, lineageSection, provenanceSection, shaText, versionName, versionRow } from './parts.ts';

type Measured = NonNullable<LoadTestFacts['measured']>;

const names = ['p50', 'p95', 'p99'] as const satisfies PercentileName[];

export function loadTestDocument(facts: LoadTestFacts, sha256: string): ReportDocument {
  const { deployment, version, measured, state, jobId, endedAt } = facts;
  const found =
    measured &&
    (measured.highestRate === null
      ? 'no rate meets the deadline'
      : `${number(measured.highestRate)} requests a second within the deadline`);
  return {
    kind: 'Load test',
    title: `${deployment ?? '(deleted)'}, ${versionName(version)}: ${found ?? state}`,
    lead: [{ list: [...(measured ? sentencesOf(measured, measured.rates) : []), endText(facts)] }],
    sections: [
      ...(measured ? [latencySection(measured), outcomeSection(measured), conditionSection(measured)] : []),
      attemptSection(facts),
      lineageSection([version]),
      provenanceSection([['The load test', opaqueId('Job', jobId)], ...(version ? [versionRow(version)] : [])]),
    ],
    footer: [`Ended: ${endedAt ?? 'not yet'}.`, shaText(sha256)],
  };
}

function percentileText({ kind, ns }: Percentile): string {
  if (ns === null) return 'too few requests';
  return kind === 'AT_MOST' ? `≤ ${ms(ns)}` : ms(ns);
}

function latencySection({ rates, deadlineMs }: Measured): Section {
  const ordered = rates.toSorted((a, b) => a.answeredPerSecond - b.answeredPerSecond);
  return {
    heading: 'Latency against throughput',
    blocks: [
      {
        plots: [
          linePlot({
            title: 'Latency against throughput',
            description: 'The percentiles of the answered requests at each rate. The table has the numbers.',
            x: { label: 'answers a second', include: [0] },
            y: { label: 'latency from the due time (ms)', log: true },
            series: [
              ...names.map((name) => ({
                name: percentileTitles[name],
                points: ordered.map(({ answeredPerSecond, latency }) => ({
                  x: answeredPerSecond,
                  y: latency[name].ns === null ? null : latency[name].ns / 1e6,
                })),
              })),
              { name: 'deadline', points: [0, ordered.at(-1)?.answeredPerSecond ?? 1].map((x) => ({ x, y: deadlineMs })) },
            ],
          }),
        ],
      },
      {
        table: {
          caption: `Latencies count from when a request was due. The deadline is ${number(deadlineMs)} ms.`,
          head: ['Requests a second', 'Answers a second', ...names.map((name) => percentileTitles[name]), 'In the deadline', 'Meets it'],
          rows: rates.map(({ rate, answeredPerSecond, latency, inDeadline, arrivals, meetsDeadline }) => [
            number(rate),
            number(answeredPerSecond),
            ...names.map((name) => percentileText(latency[name])),
            arrivals === 0 ? none : `${((100 * inDeadline) / arrivals).toFixed(2)} %`,
            meetsDeadline ? 'yes' : 'no',
          ]),
        },
      },
    ],
  };
}

const outcomeSection = ({ rates }: Measured): Section => ({
  heading: 'What became of the requests',
  blocks: [
    {
      table: {
        caption: 'Refusals are answers 429 (overloaded) and 503 (unavailable); expired requests were admitted and answered 504.',
        head: ['Requests a second', 'Due', 'Answered', 'Overloaded', 'Unavailable', 'Expired', 'Failed', 'Not sent'],
        rows: rates.map(({ rate, arrivals, answered, overloaded, unavailable, expired, failed, notSent }) => [
          number(rate),
          ...[arrivals, answered, overloaded, unavailable, expired, failed, notSent].map(String),
        ]),
      },
    },
  ],
});

const conditionSection = ({ rates, secondsPerRate, seed, revision, capacityPerSecond }: Measured): Section => ({
  heading: 'How it was measured',
  blocks: [
    {
      text:
        `Revision ${revision} was driven over HTTP for ${secondsPerRate} s at each rate, with random arrivals (Poisson, seed ${seed}) that wait for no ` +
        `earlier answer. Asked for as much as it could do, it answered ${number(capacityPerSecond)} requests a second.`,
    },
    {
      table: {
        caption: 'The load generator ran on the same machine. Where it sent late, the latencies are too long.',
        head: ['Requests a second', 'Sent after the due time (P99)', 'Late', 'Cores of the load generator', 'Requests of others'],
        rows: rates.map(({ rate, sendDelayNs, clientLate, clientCores, otherRequests }) => [
          number(rate),
          sendDelayNs === null ? none : ms(sendDelayNs),
          clientLate ? 'yes' : 'no',
          clientCores.toFixed(2),
          otherRequests === null ? none : String(otherRequests),
        ]),
      },
    },
  ],
});

const columns: [string, (rate: RateFacts) => Value][] = [
  ['rate', ({ rate }) => rate],
  ['answeredPerSecond', ({ answeredPerSecond }) => answeredPerSecond],
  ...(['arrivals', 'answered', 'overloaded', 'unavailable', 'expired', 'failed', 'notSent', 'inDeadline'] as const).map(
    (name): [string, (rate: RateFacts) => Value] => [name, (rate) => rate[name]],
  ),
  ['meetsDeadline', ({ meetsDeadline }) => String(meetsDeadline)],
  ...names.flatMap((name): [string, (rate: RateFacts) => Value][] => [
    [`${name}Kind`, ({ latency }) => latency[name].kind],
    [`${name}Ns`, ({ latency }) => latency[name].ns],
    [`${name}LowNs`, ({ latency }) => latency[name].lowNs],
    [`${name}HighNs`, ({ latency }) => latency[name].highNs],
  ]),
  ['sendDelayP99Ns', ({ sendDelayNs }) => sendDelayNs],
  ['clientLate', ({ clientLate }) => String(clientLate)],
  ['clientCores', ({ clientCores }) => clientCores],
  ['otherRequests', ({ otherRequests }) => otherRequests],
];

/** A line for each rate. */
export const rateTable = ({ measured }: LoadTestFacts): { head: string[]; rows: Value[][] } => ({
  head: columns.map(([name]) => name),
  rows: (measured?.rates ?? []).map((rate) => columns.map(([, read]) => read(rate))),
});
