import { randomUUIDv7 } from 'node:crypto';
import { and, asc, desc, eq, gt, inArray, isNotNull, isNull, lte, max, ne } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { opaqueId } from '../naming.ts';
import { suggestion } from '../suggest.ts';
import { queueDeliveries } from '../webhooks/outbox.ts';
import { type Deployment, type DeploymentRevision, deployment, deploymentRevision } from './tables.ts';

/** Beyond, undeploy one first. */
export const deploymentsMax = 100;

export function findDeployment(db: Queryable, id: string): Deployment | undefined {
  return db
    .select()
    .from(deployment)
    .where(and(eq(deployment.id, id), isNull(deployment.deletedAt)))
    .get();
}

/** Live or not. */
export function findDeploymentEver(db: Queryable, id: string): Deployment | undefined {
  return db.select().from(deployment).where(eq(deployment.id, id)).get();
}

export function findDeploymentByName(db: Queryable, name: string): Deployment | undefined {
  return db
    .select()
    .from(deployment)
    .where(and(eq(deployment.name, name), isNull(deployment.deletedAt)))
    .get();
}

/** Live ones by name. */
export function listDeployments(db: Queryable, limit: number, after: string | null): Deployment[] {
  return db
    .select()
    .from(deployment)
    .where(and(isNull(deployment.deletedAt), after === null ? undefined : gt(deployment.name, after)))
    .orderBy(asc(deployment.name))
    .limit(limit)
    .all();
}

/** For who has named one that there is not: which was meant, and which there are. */
export function whyNoDeployment(db: Queryable, name: string): string {
  const known = listDeployments(db, deploymentsMax, null).map((row) => row.name);
  const there = known.length > 0 ? `There are: ${known.join(', ')}.` : 'Nothing is deployed yet.';
  return `There is no deployment ${name.slice(0, 100)}.${suggestion(name, known)} ${there}`;
}

/** Newest first. */
export function listRevisions(db: Queryable, deploymentId: string, limit: number): DeploymentRevision[] {
  return db
    .select()
    .from(deploymentRevision)
    .where(eq(deploymentRevision.deploymentId, deploymentId))
    .orderBy(desc(deploymentRevision.number))
    .limit(limit)
    .all();
}

export function findRevision(db: Queryable, deploymentId: string, number: number): DeploymentRevision | undefined {
  return db.select().from(deploymentRevision).where(isRevision({ deploymentId, number })).get();
}

export function revisionIn(
  db: Queryable,
  deploymentId: string,
  state: Extract<DeploymentRevision['state'], 'LOADING' | 'ACTIVE'>,
): DeploymentRevision | undefined {
  return db
    .select()
    .from(deploymentRevision)
    .where(and(eq(deploymentRevision.deploymentId, deploymentId), eq(deploymentRevision.state, state)))
    .get();
}

/** The revision that served before the one that serves now. */
export function revisionBefore(db: Queryable, deploymentId: string): DeploymentRevision | undefined {
  return db
    .select()
    .from(deploymentRevision)
    .where(
      and(
        eq(deploymentRevision.deploymentId, deploymentId),
        eq(deploymentRevision.state, 'RETIRED'),
        isNotNull(deploymentRevision.activatedAt),
      ),
    )
    .orderBy(desc(deploymentRevision.retiredAt), desc(deploymentRevision.number))
    .limit(1)
    .get();
}

/** With which settings a model version has served last, in any deployment. */
export function lastServed(db: Queryable, modelVersionId: string): DeploymentRevision | undefined {
  return db
    .select()
    .from(deploymentRevision)
    .where(and(eq(deploymentRevision.modelVersionId, modelVersionId), isNotNull(deploymentRevision.activatedAt)))
    .orderBy(desc(deploymentRevision.activatedAt), asc(deploymentRevision.deploymentId))
    .limit(1)
    .get();
}

export type Revision = Pick<DeploymentRevision, 'deploymentId' | 'number'>;

export const isRevision = ({ deploymentId, number }: Revision) =>
  and(eq(deploymentRevision.deploymentId, deploymentId), eq(deploymentRevision.number, number));

/** Revisions of a deployment: a further one pushes out the oldest that nobody rolls back to without its number. */
const revisionsMax = 1000;

/** A next revision, LOADING. */
export function insertRevision(
  tx: Queryable,
  { deploymentId, ...values }: Pick<DeploymentRevision, 'deploymentId' | 'modelVersionId' | 'settingsJson' | 'createdById'>,
): DeploymentRevision {
  const newest = tx
    .select({ number: max(deploymentRevision.number) })
    .from(deploymentRevision)
    .where(eq(deploymentRevision.deploymentId, deploymentId))
    .get();
  const number = (newest?.number ?? 0) + 1;
  const isSurplus = and(
    eq(deploymentRevision.deploymentId, deploymentId),
    lte(deploymentRevision.number, number - revisionsMax),
    inArray(deploymentRevision.state, ['RETIRED', 'FAILED']),
    ne(deploymentRevision.number, revisionBefore(tx, deploymentId)?.number ?? 0),
  );
  tx.delete(deploymentRevision).where(isSurplus).run();
  const row = { deploymentId, number, ...values, state: 'LOADING', createdAt: Date.now() } as const;
  return tx.insert(deploymentRevision).values(row).returning().get();
}

export function insertDeployment(tx: Queryable, name: string): Deployment {
  return tx.insert(deployment).values({ id: randomUUIDv7(), name, createdAt: Date.now() }).returning().get();
}

/** With the name of its deployment. */
export type WantedRevision = DeploymentRevision & { name: string };

/** What the inference host has to hold: the revisions that serve, then those that are to. */
export function wantedRevisions(db: Queryable): WantedRevision[] {
  return db
    .select()
    .from(deploymentRevision)
    .innerJoin(deployment, eq(deployment.id, deploymentRevision.deploymentId))
    .where(and(isNull(deployment.deletedAt), inArray(deploymentRevision.state, ['ACTIVE', 'LOADING'])))
    .orderBy(asc(deploymentRevision.state), asc(deployment.name))
    .all()
    .map((row) => ({ ...row.deployment_revision, name: row.deployment.name }));
}

/** A warm revision takes the traffic; the one before it retires. False where it is not LOADING any more. */
export function activate(tx: Queryable, revision: Revision): boolean {
  const row = tx.select().from(deploymentRevision).where(isRevision(revision)).get();
  if (row?.state !== 'LOADING') return false;
  const now = Date.now();
  const active = and(eq(deploymentRevision.deploymentId, revision.deploymentId), eq(deploymentRevision.state, 'ACTIVE'));
  tx.update(deploymentRevision).set({ state: 'RETIRED', retiredAt: now }).where(active).run();
  tx.update(deploymentRevision).set({ state: 'ACTIVE', activatedAt: now }).where(isRevision(revision)).run();
  queueChange(tx, row.deploymentId, { ...row, state: 'ACTIVE' });
  return true;
}

/** Changes nothing where it was taken away meanwhile. */
export function fail(tx: Queryable, revision: Revision, reason: string): void {
  const row = tx
    .update(deploymentRevision)
    .set({ state: 'FAILED', reason: reason.slice(0, 2000) })
    .where(and(isRevision(revision), inArray(deploymentRevision.state, ['LOADING', 'ACTIVE'])))
    .returning()
    .get();
  if (row) queueChange(tx, row.deploymentId, row);
}

/** Queues the deliveries of a change: a revision took the traffic or FAILED, or, with null, the deployment was removed. */
export function queueChange(tx: Queryable, deploymentId: string, revision: DeploymentRevision | null): void {
  queueDeliveries(tx, 'DEPLOYMENT_CHANGED', {
    deploymentId: opaqueId('Deployment', deploymentId),
    name: findDeploymentEver(tx, deploymentId)?.name,
    state: revision?.state ?? 'REMOVED',
    revision: revision?.number ?? null,
    modelVersionId: revision && opaqueId('ModelVersion', revision.modelVersionId),
    reason: revision?.state === 'FAILED' ? revision.reason : null,
  });
}

/** Refuses (IN_USE) to delete a model version that serves, or is to. */
export function requireNotDeployed(tx: Queryable, { id, number }: { id: string; number: number }): void {
  const user = wantedRevisions(tx).find(({ modelVersionId }) => modelVersionId === id);
  if (user)
    refuse('IN_USE', null, `The deployment ${user.name} serves version ${number}. Undeploy it, or deploy another version, then delete.`);
}
