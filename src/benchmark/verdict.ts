import type { BenchmarkSettings } from '../jobs/specs.ts';
import { gateFailures } from '../models/gate.ts';
import type { Telemetry } from './cells.ts';
import { type LatencySummary, type Stability, stableWindows } from './statistics.ts';
import { type Verdict, verdicts } from './tables.ts';

/** What is known of a row when it is judged. */
export interface Evidence {
  telemetry: Telemetry;
  summary: LatencySummary | null;
  stability: Stability | null;
  settings: BenchmarkSettings;
}

export interface Reason {
  code: string;
  message: string;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** `says` what is so, or null where the rule is not met. */
type Rule = { code: string; verdict: Verdict | null; says(evidence: Evidence): string | null };

/** A rule for a share that may be at most `max`. */
const atMost = (
  code: string,
  verdict: Verdict,
  max: number,
  shareOf: (evidence: Evidence) => number | null | undefined,
  says: (share: string, max: string) => string,
): Rule => ({
  code,
  verdict,
  says(evidence) {
    const share = shareOf(evidence);
    return typeof share === 'number' && share > max ? says(percent(share), percent(max)) : null;
  },
});

/**
 * What a measurement is worth. Each rule that is met adds its reason; the worst verdict counts. Rules without a verdict are notes. Only a
 * wrong result or a crash disqualifies: noise widens the intervals (`resampling.ts`), so an UNSTABLE row can still be chosen.
 */
const rules: Rule[] = [
  { code: 'UNAVAILABLE', verdict: 'UNAVAILABLE', says: ({ telemetry }) => telemetry.unavailable?.message ?? null },
  {
    code: 'GATE_FAILED',
    verdict: 'INVALID',
    says({ telemetry: { gate } }) {
      const failures = gateFailures(gate?.outputs ?? []);
      return failures.length === 0
        ? null
        : `Compared with the reference on ${gate?.inputs} inputs: ${failures.join(' ')} A speed counts only when the results are right.`;
    },
  },
  atMost(
    'STEAL',
    'UNSTABLE',
    0.02,
    ({ telemetry }) => telemetry.noise?.steal,
    (share, max) => `Other virtual machines took ${share} of the processor's time; ${max} is allowed.`,
  ),
  atMost(
    'THROTTLED',
    'UNSTABLE',
    0.01,
    ({ telemetry }) => telemetry.noise?.throttled,
    (share, max) => `The container's processor quota stopped the process in ${share} of the periods; ${max} is allowed.`,
  ),
  atMost(
    'CONTENTION',
    'UNSTABLE',
    0.05,
    ({ telemetry }) => telemetry.noise?.contention,
    (share, max) => `Other processes took ${share} of the time that its threads wanted; ${max} is allowed.`,
  ),
  {
    code: 'TOO_FEW_WINDOWS',
    verdict: 'UNSTABLE',
    says: ({ stability }) =>
      stability && stability.windows < stableWindows
        ? `It ran for ${stability.windows} windows; ${stableWindows} are needed to tell whether its speed is stable. Measure for longer.`
        : null,
  },
  atMost(
    'THROUGHPUT_SPREAD',
    'UNSTABLE',
    0.05,
    ({ stability }) => stability?.throughputSpread,
    (share, max) => `The throughput of the last ${stableWindows} windows varies by ${share}; ${max} is allowed.`,
  ),
  atMost(
    'P95_SPREAD',
    'UNSTABLE',
    0.05,
    ({ stability }) => stability?.p95Spread,
    (share, max) => `The P95 latency of the last ${stableWindows} windows varies by ${share}; ${max} is allowed.`,
  ),
  atMost(
    'DRIFT',
    'UNSTABLE',
    0.05,
    ({ stability }) => stability?.drift,
    (share, max) => `The throughput changed by ${share} from the first window to the last; ${max} is allowed.`,
  ),
  {
    code: 'WARMUP_CAPPED',
    verdict: null,
    says: ({ telemetry: { warmup }, settings }) =>
      warmup && !warmup.settled ? `Its speed had not settled when the warm-up ended after ${settings.warmupSecondsMax} s.` : null,
  },
  {
    code: 'SELF_REFERENCE',
    verdict: null,
    says: ({ telemetry }) =>
      telemetry.gate?.reference === 'SELF_REFERENCE'
        ? 'Its outputs were compared with those of the same file without optimisations, on seeded inputs: it has no probe set.'
        : null,
  },
  {
    code: 'FEW_GATE_INPUTS',
    verdict: null,
    says: ({ telemetry: { gate }, settings }) =>
      gate && gate.inputs < settings.gateInputs
        ? `Its outputs were compared on ${gate.inputs} inputs only: its probe set has no more. ${settings.gateInputs} are wanted.`
        : null,
  },
  {
    code: 'FEW_SAMPLES',
    verdict: null,
    says: ({ summary, settings: { samplesWanted, secondsMax } }) =>
      summary && summary.count < samplesWanted ? `${summary.count} samples in ${secondsMax} s; ${samplesWanted} were wanted.` : null,
  },
  {
    code: 'SAMPLES_CAPPED',
    verdict: null,
    says: ({ summary, settings: { samplesMax } }) =>
      summary && summary.count >= samplesMax ? `It ended early, at ${samplesMax} samples.` : null,
  },
  {
    code: 'NOISE_UNKNOWN',
    verdict: null,
    says: ({ telemetry: { noise } }) =>
      noise && Object.values(noise).includes(null) ? 'This system does not tell all of what else the machine did.' : null,
  },
];

export function judge(evidence: Evidence): { verdict: Verdict; reasons: Reason[] } {
  const met = rules.flatMap(({ code, verdict, says }) => {
    const message = says(evidence);
    return message === null
      ? []
      : [{ code: code === 'UNAVAILABLE' ? (evidence.telemetry.unavailable?.code ?? code) : code, message, verdict }];
  });
  const worst = verdicts.findLast((verdict) => met.some((rule) => rule.verdict === verdict));
  return { verdict: worst ?? 'VALID', reasons: met.map(({ code, message }) => ({ code, message })) };
}
