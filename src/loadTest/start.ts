import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import { sizesOf } from '../benchmark/context.ts';
import { canMake } from '../benchmark/inputs.ts';
import type { Queryable } from '../db.ts';
import { findDeployment, findDeploymentByName, revisionIn, whyNoDeployment } from '../deployments/deployments.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import type { Deployment } from '../deployments/tables.ts';
import { planShapes } from '../engine/shapes.ts';
import { parseInput, refuse } from '../errors.ts';
import { ModelSettings } from '../inference/config.ts';
import { submitJob } from '../jobs/enqueue.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { JobPriority } from '../jobs/priority.ts';
import { OnnxMeta } from '../jobs/results.ts';
import { LoadTestSpec } from '../jobs/specs.ts';
import type { Job } from '../jobs/tables.ts';
import { inputsOf } from '../models/signature.ts';
import type { ModelVersion } from '../models/tables.ts';
import { requireReadyModel } from '../training/sources.ts';
import { lastDrivenAt } from './loadTests.ts';
import { ratesCount } from './rates.ts';
import { answerMsBeyond } from './run.ts';

/** A deployment that has answered somebody within this time serves others. */
const recentMs = 5 * 60_000;

/** Below the time for which the token of a load test is valid. */
const durationMsMax = 14 * 60_000;
const startMs = 10_000;

const { rates, deadlineMs, secondsPerRate, seed } = LoadTestSpec.shape;

/** `specJson` of a LOAD_TEST job. */
export const LoadTestRequest = z.object({
  deploymentId: z.string(),
  modelVersionId: z.string(),
  rates,
  deadlineMs,
  secondsPerRate,
  seed,
  confirmServing: z.boolean(),
});
export type LoadTestRequest = z.infer<typeof LoadTestRequest>;

const StartLoadTestInput = z
  .object({
    deployment: z.string(),
    rates: rates.unwrap().nullish(),
    deadlineMs: deadlineMs.nullish(),
    secondsPerRate,
    seed,
    confirmServing: z.boolean(),
    priority: JobPriority.nullish(),
    idempotencyKey: z.string().max(200).nullish(),
  })
  .strict();

/** Puts the load test of a deployment into the queue. */
export async function startLoadTest(services: JobServices & { supervisor: Supervisor }, actor: Actor, raw: unknown): Promise<Job> {
  const input = parseInput(StartLoadTestInput, raw);
  const { supervisor, db } = services;
  const row = findDeploymentByName(db, input.deployment) ?? refuse('NOT_FOUND', 'deployment', whyNoDeployment(db, input.deployment));
  const lastAt = await lastAnsweredAt(supervisor, row);
  return submitJob(services, actor, { kind: 'LOAD_TEST', input, priority: input.priority }, (tx): LoadTestRequest => {
    if (!input.confirmServing) refuseIfServing(tx, row, lastAt, null);
    const { version, settings } = requireDrivable(tx, row.id);
    const request = {
      deploymentId: row.id,
      modelVersionId: version.id,
      rates: input.rates ?? null,
      deadlineMs: input.deadlineMs ?? settings.deadlineMs,
      secondsPerRate: input.secondsPerRate,
      seed: input.seed,
      confirmServing: input.confirmServing,
    };
    const count = request.rates?.length ?? ratesCount;
    const durationMs = startMs + count * (1000 * request.secondsPerRate + request.deadlineMs + answerMsBeyond);
    if (durationMs > durationMsMax) {
      const minutes = Math.ceil(durationMs / 60_000);
      refuse(
        'LIMIT',
        'secondsPerRate',
        `This may take ${minutes} minutes, but at most ${durationMsMax / 60_000} are allowed. Drive fewer rates, or each for less time.`,
      );
    }
    return request;
  });
}

/** When a deployment last answered a request, in Unix milliseconds; 0 where its host knows of none. */
export async function lastAnsweredAt(supervisor: Supervisor, { name }: Deployment): Promise<number> {
  const { models } = await supervisor.stats();
  return Math.max(0, ...models.filter((model) => model.name === name).map((model) => model.lastAt ?? 0));
}

/** An InputError where `lastAt` is recent, and the request of somebody else than a load test. `jobId`: of the load test that asks. */
export function refuseIfServing(tx: Queryable, { id, name }: Deployment, lastAt: number, jobId: string | null): void {
  const now = Date.now();
  if (lastAt < now - recentMs || lastAt <= lastDrivenAt(tx, id, jobId)) return;
  const seconds = Math.round((now - lastAt) / 1000);
  refuse(
    'IN_USE',
    'confirmServing',
    `${name} answered a request ${seconds} s ago: a load test makes those who use it wait, and refuses some of them. ` +
      'Test a deployment that nobody uses, or send `confirmServing: true`.',
  );
}

/** What serves now, and what a request to it is made of. An InputError where it cannot be driven. */
export function requireDrivable(tx: Queryable, deploymentId: string) {
  const row = findDeployment(tx, deploymentId) ?? refuse('NOT_FOUND', 'deployment', 'The deployment is gone.');
  const revision =
    revisionIn(tx, row.id, 'ACTIVE') ?? refuse('INVALID', 'deployment', `${row.name} serves nothing yet: its revisions say why.`);
  const version = requireReadyModel(tx, revision.modelVersionId, 'deployment');
  const settings = ModelSettings.parse(revision.settingsJson);
  return { row, revision, version, settings, inputs: plannedInputs(version, settings) };
}

/** Of one item. */
function plannedInputs(version: ModelVersion, { dims }: ModelSettings): LoadTestSpec['inputs'] {
  const inputs = inputsOf(OnnxMeta.parse(version.signatureJson));
  const [batchSize] = inputs[0]?.shape ?? [];
  const planned = planShapes(inputs, typeof batchSize === 'number' ? batchSize : 1, sizesOf(version, dims));
  if ('problem' in planned) refuse('INVALID', 'deployment', planned.problem.message);
  const unknown = inputs.find(({ datatype }) => !canMake(datatype));
  if (unknown) refuse('INVALID', 'deployment', `Inputs of type ${unknown.datatype} cannot be made (${unknown.name}).`);
  return inputs.map(({ name, datatype }) => ({ name, datatype, shape: planned.shapes.get(name) as number[] }));
}
