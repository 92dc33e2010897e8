import type { BenchmarkSettings } from '../jobs/specs.ts';
import { gateFailures } from '../models/gate.ts';
import type { Telemetry } from './cells.ts';
import type { LatencySummary, Stability } from './statistics.ts';
import { type Verdict, verdicts } from './tables.ts';

/** What is known of a row when it is judged. */
export interface Evidence {
  telemetry: Telemetry;
  summary: LatencySummary | null;
  stability: Stability | null;
  settings: BenchmarkSettings;
}

/** A rule that a measurement has met: what was found, and what is allowed or wanted, where these are numbers. `reports/sentences.ts` says it. */
export interface Reason {
  code: string;
  value: number | null;
  limit: number | null;
}

/** `finds` the numbers of a rule that is met, null where it is not. */
type Rule = { code: string; verdict: Verdict | null; finds(evidence: Evidence): Omit<Reason, 'code'> | null };

const noNumbers = { value: null, limit: null };

/** A rule for a value that may be `limit` at most. */
const atMost = (
  code: string,
  verdict: Rule['verdict'],
  limit: number,
  shareOf: (evidence: Evidence) => number | null | undefined,
): Rule => ({
  code,
  verdict,
  finds(evidence) {
    const value = shareOf(evidence);
    return typeof value === 'number' && value > limit ? { value, limit } : null;
  },
});

/**
 * What a measurement is worth. Each rule that is met adds its reason; the worst verdict counts. Rules without a verdict are notes. Only a
 * wrong result or a crash disqualifies: what others did to a row widens its intervals (`resampling.ts`), so an UNSTABLE one can still be chosen.
 */
const rules: Rule[] = [
  {
    code: 'GATE_FAILED',
    verdict: 'INVALID',
    finds({ telemetry: { gate } }) {
      const value = gateFailures(gate?.outputs ?? []).length;
      return value > 0 ? { value, limit: 0 } : null;
    },
  },
  atMost('STEAL', 'UNSTABLE', 0.02, ({ telemetry }) => telemetry.noise?.steal),
  atMost('THROTTLED', 'UNSTABLE', 0.01, ({ telemetry }) => telemetry.noise?.throttled),
  atMost('CONTENTION', 'UNSTABLE', 0.05, ({ telemetry }) => telemetry.noise?.contention),
  atMost('DRIFT', null, 0.05, ({ stability }) => stability?.drift),
  {
    code: 'WARMUP_CAPPED',
    verdict: null,
    finds: ({ telemetry: { warmup }, settings }) =>
      warmup && !warmup.settled ? { value: warmup.durationNs / 1e9, limit: settings.warmupSecondsMax } : null,
  },
  {
    code: 'SELF_REFERENCE',
    verdict: null,
    finds: ({ telemetry }) => (telemetry.gate?.reference === 'SELF_REFERENCE' ? noNumbers : null),
  },
  {
    code: 'FEW_GATE_INPUTS',
    verdict: null,
    finds: ({ telemetry: { gate }, settings: { gateInputs } }) =>
      gate && gate.inputs < gateInputs ? { value: gate.inputs, limit: gateInputs } : null,
  },
  {
    code: 'FEW_SAMPLES',
    verdict: null,
    finds: ({ summary, settings: { samplesWanted } }) =>
      summary && summary.count < samplesWanted ? { value: summary.count, limit: samplesWanted } : null,
  },
  {
    code: 'SAMPLES_CAPPED',
    verdict: null,
    finds: ({ summary, settings: { samplesMax } }) =>
      summary && summary.count >= samplesMax ? { value: summary.count, limit: samplesMax } : null,
  },
  {
    code: 'NOISE_UNKNOWN',
    verdict: null,
    finds: ({ telemetry: { noise } }) => (noise && Object.values(noise).includes(null) ? noNumbers : null),
  },
];

export function judge(evidence: Evidence): { verdict: Verdict; reasons: Reason[] } {
  const { unavailable } = evidence.telemetry;
  if (unavailable) return { verdict: 'UNAVAILABLE', reasons: [{ code: unavailable.code, ...noNumbers }] };
  const met = rules.flatMap(({ code, verdict, finds }) => {
    const numbers = finds(evidence);
    return numbers ? [{ verdict, reason: { code, ...numbers } }] : [];
  });
  const worst = verdicts.findLast((verdict) => met.some((rule) => rule.verdict === verdict));
  return { verdict: worst ?? 'VALID', reasons: met.map(({ reason }) => reason) };
}
