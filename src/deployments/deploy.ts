import { and, eq, inArray } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { whyNotServed } from '../engine/engines.ts';
import { ModelEngine } from '../engine/hostEngine.ts';
import { ApiError, parseInput, refuse } from '../errors.ts';
import { ModelSettings, ServedName } from '../inference/config.ts';
import { declaredProblem } from '../inference/declared.ts';
import { OnnxMeta } from '../jobs/results.ts';
import { inputsOf, outputsOf } from '../models/signature.ts';
import type { ModelVersion } from '../models/tables.ts';
import { requireReadyModel } from '../training/sources.ts';
import {
  deploymentsMax,
  findDeploymentByName,
  findRevision,
  insertDeployment,
  insertRevision,
  listDeployments,
  listRevisions,
  queueChange,
  revisionBefore,
  whyNoDeployment,
} from './deployments.ts';
import { measuredSettings } from './fromBenchmark.ts';
import { modelConfigOf } from './modelConfig.ts';
import type { Supervisor } from './supervise.ts';
import { type Deployment, type DeploymentRevision, deployment, deploymentRevision } from './tables.ts';

interface DeployServices {
  config: Config;
  db: Db;
  supervisor: Supervisor;
}

type Settings = DeploymentRevision['settingsJson'];

const DeployInput = z.object({
  name: ServedName,
  modelVersionId: z.string(),
  settings: ModelSettings.omit({ runMs: true }),
  benchmarkJobId: z.string().nullish(),
});

/**
 * Puts a model version behind a name; the name is made where there is none. With a benchmark its engine, threads, batch and run times are those
 * that it has measured. It takes the traffic when it is warm, or FAILED says why not.
 */
export async function deploy(services: DeployServices, actor: Actor, raw: unknown): Promise<Deployment> {
  const { name, modelVersionId, settings, benchmarkJobId } = parseInput(DeployInput, raw);
  const problems = await engineProblems(services.config, benchmarkJobId ? engines : [settings.engine]);
  const unserved = problems.get(settings.engine);
  if (unserved) refuse('INVALID', 'settings', unserved);
  return committed(services, (tx) => {
    const version = requireReadyModel(tx, modelVersionId);
    if (version.format !== 'ONNX') {
      refuse('INVALID', 'modelVersionId', `Version ${version.number} is a ${version.format}: only ONNX is served. Convert it first.`);
    }
    requireServable(tx, version, name, settings);
    const measured = benchmarkJobId
      ? measuredSettings(tx, services.config, benchmarkJobId, version, settings, (engine) => problems.get(engine) === null)
      : {};
    const row = findDeploymentByName(tx, name) ?? insertNew(tx, name);
    addRevision(tx, actor, 'deploy', row, { modelVersionId, settingsJson: { ...settings, ...measured } });
    return row;
  });
}

const engines = ModelEngine.unwrap().options;
/** Why the host does not run models on each of these engines; null where it does. Those of a GPU ask its driver. */
async function engineProblems({ inferenceEngine }: Config, asked: ModelEngine[]): Promise<Map<ModelEngine, string | null>> {
  return new Map(await Promise.all(asked.map(async (engine) => [engine, await whyNotServed(engine, inferenceEngine)] as const)));
}

/** What is missing or wrong by what the file declares is refused at once; what only a run shows makes the revision FAILED. */
function requireServable(tx: Queryable, { id, number, signatureJson }: ModelVersion, name: string, settingsJson: Settings): void {
  const made = modelConfigOf(tx, { name, number: 1, modelVersionId: id, settingsJson });
  const declared = OnnxMeta.parse(signatureJson);
  const ports = { inputs: inputsOf(declared), outputs: outputsOf(declared) };
  const problem = 'problem' in made ? made.problem : declaredProblem(ports, made.model);
  if (problem) refuse('INVALID', 'settings', `Version ${number} cannot be served. ${problem}`);
}

/** Puts back what served before, or the revision with this number, as a new revision. */
export async function rollback(services: DeployServices, actor: Actor, name: string, number: number | null): Promise<Deployment> {
  const problems = await engineProblems(services.config, engines);
  return committed(services, (tx) => {
    const row = requireDeployment(tx, name);
    const before = number === null ? revisionBefore(tx, row.id) : findRevision(tx, row.id, number);
    if (!before) {
      const newest = listRevisions(tx, row.id, 1)[0]?.number;
      const what = number === null ? 'Nothing served before.' : `There is no revision ${number}: the newest is ${newest}.`;
      refuse('NOT_FOUND', 'revision', what);
    }
    const { modelVersionId, settingsJson } = before;
    requireReadyModel(tx, modelVersionId, 'revision');
    const unserved = problems.get(ModelEngine.parse(settingsJson.engine));
    if (unserved) refuse('INVALID', 'revision', `Revision ${before.number} cannot be put back. ${unserved}`);
    addRevision(tx, actor, 'rollback', row, { modelVersionId, settingsJson });
    return row;
  });
}

/** Takes the name away: new requests get 404, running ones still get their answers. */
export function undeploy(services: DeployServices, actor: Actor, name: string): Promise<Deployment> {
  return committed(
    services,
    (tx) => {
      const row = requireDeployment(tx, name);
      const now = Date.now();
      tx.update(deploymentRevision)
        .set({ state: 'RETIRED', retiredAt: now })
        .where(and(eq(deploymentRevision.deploymentId, row.id), inArray(deploymentRevision.state, ['LOADING', 'ACTIVE'])))
        .run();
      writeAudit(tx, actor, { action: 'undeploy', target: { type: 'Deployment', id: row.id }, detail: { name } });
      queueChange(tx, row.id, null);
      return tx.update(deployment).set({ deletedAt: now }).where(eq(deployment.id, row.id)).returning().get();
    },
    inUrgentTransaction,
  );
}

/** Resolves when the host goes by what was committed: from then on no request reaches what was taken away. */
async function committed(
  { db, supervisor }: DeployServices,
  work: (tx: Queryable) => Deployment,
  transact = inTransaction,
): Promise<Deployment> {
  const row = transact(db, work);
  await supervisor.wake();
  return row;
}

function requireDeployment(tx: Queryable, name: string): Deployment {
  const found = findDeploymentByName(tx, name);
  if (!found) throw new ApiError('NOT_FOUND', whyNoDeployment(tx, name));
  return found;
}

function insertNew(tx: Queryable, name: string): Deployment {
  if (listDeployments(tx, deploymentsMax, null).length === deploymentsMax)
    refuse('LIMIT', 'name', `There are ${deploymentsMax} deployments: undeploy one first.`);
  return insertDeployment(tx, name);
}

function addRevision(
  tx: Queryable,
  actor: Actor,
  action: 'deploy' | 'rollback',
  { id, name }: Deployment,
  what: Pick<DeploymentRevision, 'modelVersionId' | 'settingsJson'>,
): void {
  // The newest wins: one that waits for room on the disk would otherwise keep out what does not need any.
  tx.update(deploymentRevision)
    .set({ state: 'RETIRED', retiredAt: Date.now() })
    .where(and(eq(deploymentRevision.deploymentId, id), eq(deploymentRevision.state, 'LOADING')))
    .run();
  const { number } = insertRevision(tx, { deploymentId: id, createdById: actor.actorId, ...what });
  writeAudit(tx, actor, {
    action,
    target: { type: 'Deployment', id },
    detail: { name, revision: number, modelVersionId: what.modelVersionId },
  });
}
