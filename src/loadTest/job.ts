import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tokens } from '../accounts/tokens.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import { ApiError, InputError } from '../errors.ts';
import { permitsOf } from '../inference/config.ts';
import { JobFailure, type JobKind } from '../jobs/kinds.ts';
import { LoadTestSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { blobPath, findArtifact } from '../storage/blobs.ts';
import { codeVersion } from '../version.ts';
import { highestRateOf, LoadTestFile } from './rates.ts';
import { LoadTestRequest, lastAnsweredAt, refuseIfServing, requireDrivable } from './start.ts';
import { loadTest, loadTestRate } from './tables.ts';

const child = join(import.meta.dirname, 'child.ts');
const connectionsMax = 256;
const answerMsMax = 5000;

const requestOf = (job: Job): LoadTestRequest => LoadTestRequest.parse(storedSpec(job));

/** Drives a deployment at one rate after the other. */
export const loadTestJob = ({ supervisor, tokens }: { supervisor: Supervisor; tokens: Tokens }): JobKind => ({
  timeLimitMs: 3_600_000,

  async launch({ config, db }, { job, attemptNumber, resumeFrom }) {
    const { deploymentId, modelVersionId, confirmServing, ...asked } = requestOf(job);
    const { row, revision, settings, inputs } = orFails(() => requireDrivable(db, deploymentId));
    const lastAt = await lastAnsweredAt(supervisor, row);
    // Later attempts follow upon requests of the first one.
    if (!confirmServing && attemptNumber === 1) orFails(() => refuseIfServing(db, row, lastAt, job.id));
    if (revision.modelVersionId !== modelVersionId) {
      throw new JobFailure('CONFLICT', `${row.name} serves another model version by now. Start a new load test.`);
    }
    const probe = findArtifact(db, 'MODEL_VERSION', modelVersionId, 'PROBE');
    const permits = config.inferencePermits ?? permitsOf(config.cores, 1);
    const spec = LoadTestSpec.parse({
      kind: 'LOAD_TEST',
      specVersion: SPEC_VERSION,
      codeVersion,
      cpuThreads: 1,
      url: supervisor.health().url ?? isNotServed(row.name),
      // The inference host takes it for as long as its user may infer. The server takes it for nothing: it belongs to no session.
      token: await tokens.sign(job.createdById as string, job.id),
      name: row.name,
      revision: revision.number,
      inputs,
      probe: probe ? blobPath(config.dataDir, probe.sha256) : null,
      ...asked,
      connections: Math.min(connectionsMax, 2 * permits * settings.batchMax),
      resumeFrom,
    });
    await requireServed(spec);
    // With less than the priority of the host it would send late.
    return { command: process.execPath, args: [child], env: {}, spec, nice: 0 };
  },

  async finish(_services, { job, workDir }, { result }) {
    const { deploymentId, modelVersionId, deadlineMs, secondsPerRate, seed } = requestOf(job);
    const text = await readFile(join(workDir, String(result.file)), 'utf8');
    const { revision, capacityPerSecond, rates } = LoadTestFile.parse(JSON.parse(text));
    return (tx) => {
      const row = { deploymentId, revision, modelVersionId, deadlineMs, secondsPerRate, seed, capacityPerSecond };
      tx.insert(loadTest)
        .values({ jobId: job.id, ...row, endedAt: Date.now() })
        .run();
      for (const [n, resultJson] of rates.entries()) tx.insert(loadTestRate).values({ jobId: job.id, n, resultJson }).run();
      return { capacityPerSecond, highestRate: highestRateOf(rates) };
    };
  },

  redo(tx, retried) {
    requireDrivable(tx, requestOf(retried).deploymentId);
  },
});

/** What was right when the job was put into the queue may have changed. */
function orFails<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw error instanceof InputError ? new JobFailure(error.userErrors[0]?.code ?? 'INVALID', error.message) : error;
  }
}

/** A later attempt finds it: after a start of the server the host still loads its models. */
function isNotServed(name: string): never {
  throw new ApiError('UNAVAILABLE', `The inference host does not serve ${name} yet. The load test starts when it does.`);
}

async function requireServed({ url, token, name, revision }: LoadTestSpec): Promise<void> {
  const asked = fetch(`${url}/v2/models/${name}/versions/${revision}/ready`, {
    headers: { authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(answerMsMax),
  });
  if ((await asked.catch(() => null))?.status !== 200) isNotServed(name);
}
