import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { feedsOf, type PlannedInput } from '../benchmark/inputs.ts';
import { canonicalJson } from '../canonical.ts';
import { tensorBytesOf } from '../engine/datatypes.ts';
import { type ChildAttempt, ChildError, type MadeFile } from '../jobs/childio.ts';
import { identify } from '../jobs/executor/local.ts';
import type { LoadTestSpec } from '../jobs/specs.ts';
import { arrivalsOf } from './arrivals.ts';
import { postOf } from './connection.ts';
import { closedLoop, openLoop, RequestRefused, type Target } from './drive.ts';
import { LoadTestFile, type RateResult, ratesOf, summarizeRate } from './rates.ts';

/** Different inputs, and bytes of all of them together. */
const inputsMax = 32;
const inputBytesMax = 2 ** 26;

/** The deadline is the longest that there is: a host that refuses what it could do later would seem to have a smaller capacity. */
const estimate = { warmupMs: 1000, ms: 3000, deadlineMs: 60_000 };

const statsMsMax = 5000;

/** How long after its deadline an answer of the host may come: 504 is one. */
export const answerMsBeyond = 2000;

type Child = ChildAttempt<LoadTestSpec>;

const bootId = (): string | null => identify(process.pid)?.bootId ?? null;

/**
 * Drives a deployment at one rate after the other. Each rate that has ended is in the newest `LoadTestFile` of the work folder, which the
 * result names: a later attempt that drives the same revision continues behind it.
 */
export async function runLoadTest(child: Child): Promise<{ file: string }> {
  try {
    const file = earlierFile(child) ?? (await estimateCapacity(child));
    const target = targetOf(child, child.spec.deadlineMs);
    const rates = child.spec.rates ?? ratesOf(file.capacityPerSecond);
    child.phase('measurement', rates.length * child.spec.secondsPerRate);
    for (const rate of rates.slice(file.rates.length)) {
      const result = await driveRate(child, target, rate);
      file.rates.push(result);
      save(child, file);
      child.advance(0, figuresOf(result));
    }
    return { file: save(child, file).name };
  } catch (error) {
    if (error instanceof RequestRefused) throw new ChildError('DATA_INVALID', error.message);
    throw error;
  }
}

const targetOf = ({ spec, stopping }: Child, deadlineMs: number): Target => ({
  url: spec.url,
  requests: requestsOf({ ...spec, deadlineMs }),
  stopping,
});

async function estimateCapacity(child: Child): Promise<LoadTestFile> {
  const { codeVersion, revision, connections, rates } = child.spec;
  child.phase('warmup', null);
  const capacityPerSecond = await closedLoop(targetOf(child, estimate.deadlineMs), { count: connections, ...estimate });
  child.checkStop();
  if (capacityPerSecond === 0 && !rates) {
    const seconds = estimate.ms / 1000;
    throw new ChildError('DATA_INVALID', `The deployment answered no request within ${seconds} s. Look at its state, or name \`rates\`.`);
  }
  return { bootId: bootId(), codeVersion, revision, capacityPerSecond, rates: [] };
}

async function driveRate(child: Child, target: Target, rate: number): Promise<RateResult> {
  const { deadlineMs, secondsPerRate, seed } = child.spec;
  const dueMs = arrivalsOf(rate, secondsPerRate, seed);
  const answeredBefore = await answeredByHost(child);
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  let seconds = 0;
  const driven = await openLoop(target, dueMs, deadlineMs + answerMsBeyond, (answered) => {
    const passed = Math.min(secondsPerRate, Math.floor((performance.now() - startedAt) / 1000));
    child.advance(passed - seconds, { rate, answered });
    seconds = passed;
  });
  child.checkStop();
  const { user, system } = process.cpuUsage(cpuBefore);
  const clientCores = (user + system) / 1000 / (performance.now() - startedAt);
  const answered = driven.status.filter((status) => status === 200).length;
  const answeredAfter = await answeredByHost(child);
  const otherRequests = answeredBefore === null || answeredAfter === null ? null : Math.max(0, answeredAfter - answeredBefore - answered);
  return summarizeRate(driven, { rate, seconds: secondsPerRate, deadlineMs }, { clientCores, otherRequests });
}

const figuresOf = ({ rate, answeredPerSecond, latency: { p50, p99 } }: RateResult): Record<string, number> => ({
  rate,
  answeredPerSecond,
  ...(p50.ns === null ? {} : { p50Ms: p50.ns / 1e6 }),
  ...(p99.ns === null ? {} : { p99Ms: p99.ns / 1e6 }),
});

/** Requests that the host has answered since its start, of every deployment; null where it does not say. */
async function answeredByHost({ spec: { url, token } }: Child): Promise<number | null> {
  try {
    const answer = await fetch(`${url}/v2/models/stats`, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(statsMsMax),
    });
    const { model_stats } = (await answer.json()) as { model_stats: { inference_stats: { success: { count: number } } }[] };
    return model_stats.reduce((sum, { inference_stats }) => sum + inference_stats.success.count, 0);
  } catch {
    return null;
  }
}

/** Requests of the protocol V2 with binary tensors, for the revision: after a swap they are refused, rather than counted for another one. */
export function requestsOf({ name, revision, token, inputs, probe, deadlineMs, seed }: LoadTestSpec): Buffer[] {
  const planned = inputs as PlannedInput[];
  const bytes = planned.reduce((sum, input) => sum + tensorBytesOf(input), 0);
  const count = Math.max(1, Math.min(inputsMax, Math.floor(inputBytesMax / bytes)));
  const json = Buffer.from(
    JSON.stringify({
      parameters: { timeout: 1000 * deadlineMs, binary_data_output: true },
      inputs: planned.map((input) => ({ ...input, parameters: { binary_data_size: tensorBytesOf(input) } })),
    }),
  );
  const path = `/v2/models/${encodeURIComponent(name)}/versions/${revision}/infer`;
  const headers = { authorization: `Bearer ${token}`, 'inference-header-content-length': json.length };
  return feedsOf(planned, probe, seed, count).map((feeds) => {
    const tensors = [...feeds.values()].map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    return postOf(path, headers, Buffer.concat([json, ...tensors]));
  });
}

/** Each has a name of its own: a checkpoint that was reported must not change. */
function save(child: Child, file: LoadTestFile): MadeFile {
  const bytes = Buffer.from(canonicalJson(file));
  const name = `rates-${file.rates.length}.json`;
  writeFileSync(join(child.workDir, name), bytes, { flush: true });
  const made = { name, sha256: createHash('sha256').update(bytes).digest('hex'), sizeBytes: bytes.length };
  child.checkpoint(made, file.rates.length);
  return made;
}

/** What an earlier attempt has measured; null when it cannot be continued. */
function earlierFile({ spec: { resumeFrom, codeVersion, revision } }: Child): LoadTestFile | null {
  if (resumeFrom === null) return null;
  const file = LoadTestFile.safeParse(JSON.parse(readFileSync(resumeFrom, 'utf8'))).data;
  return file?.bootId === bootId() && file.codeVersion === codeVersion && file.revision === revision ? file : null;
}
