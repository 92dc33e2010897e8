import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { requireNotDeployed } from '../deployments/deployments.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { requireUnused } from '../jobs/inUse.ts';
import { Name, Notes } from '../naming.ts';
import { dropArtifacts } from '../storage/blobs.ts';
import { findModel, findModelByName, findModelVersion, listAliases } from './models.ts';
import { type Model, type ModelVersion, model, modelAlias, modelVersion } from './tables.ts';

const UpdateModelInput = z.object({ name: Name.nullish(), notes: Notes.nullish() });
const AliasName = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,63}$/, 'An alias has 1 to 64 small letters, digits, dashes or underscores, and starts with a letter.');

const aliasesMax = 100;

/** Changes the name or the notes. */
export function updateModel({ db }: { db: Db }, actor: Actor, id: string, raw: unknown): Model {
  const { name, notes } = parseInput(UpdateModelInput, raw);
  return inTransaction(db, (tx) => {
    const before = findModel(tx, id) ?? notFound('model');
    const other = name ? findModelByName(tx, name) : undefined;
    if (other && other.id !== id) refuse('TAKEN', 'name', 'Another model has this name.');
    const after = tx
      .update(model)
      .set({ name: name ?? before.name, notes: notes ?? before.notes })
      .where(eq(model.id, id))
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'updateModel', target: { type: 'Model', id }, detail: { from: before.name, to: after.name } });
    return after;
  });
}

/** Points a name at a READY version of the model, whatever it pointed at before; without a version the alias goes. */
export function setModelAlias({ db }: { db: Db }, actor: Actor, id: string, rawName: string, versionId: string | null): Model {
  const { name } = parseInput(z.object({ name: AliasName }), { name: rawName });
  return inTransaction(db, (tx) => {
    const row = findModel(tx, id) ?? notFound('model');
    const mine = and(eq(modelAlias.modelId, id), eq(modelAlias.name, name));
    if (versionId === null) {
      tx.delete(modelAlias).where(mine).run();
    } else {
      const version = findModelVersion(tx, versionId);
      if (version?.modelId !== id) notFound('version of this model');
      if (version.state !== 'READY') refuse('INVALID', 'modelVersionId', `Version ${version.number} is ${version.state}, not READY.`);
      const others = listAliases(tx, id).filter((alias) => alias.name !== name);
      if (others.length >= aliasesMax) refuse('LIMIT', 'name', `A model has at most ${aliasesMax} aliases: remove one first.`);
      tx.insert(modelAlias)
        .values({ modelId: id, name, versionId })
        .onConflictDoUpdate({ target: [modelAlias.modelId, modelAlias.name], set: { versionId } })
        .run();
    }
    writeAudit(tx, actor, { action: 'setModelAlias', target: { type: 'Model', id }, detail: { name, modelVersionId: versionId } });
    return row;
  });
}

/** Leaves a tombstone of the model and its versions; the name becomes free. IN_USE while a job needs one of them. */
export function deleteModel({ db }: { db: Db }, actor: Actor, id: string): Model {
  return inUrgentTransaction(db, (tx) => {
    const row = findModel(tx, id) ?? notFound('model');
    // A training adds its version when it ends.
    requireUnused(tx, { id, jobId: null, what: `the model ${row.name}` });
    const versions = tx
      .select()
      .from(modelVersion)
      .where(and(eq(modelVersion.modelId, id), isNull(modelVersion.deletedAt)))
      .all();
    for (const version of versions) bury(tx, version);
    writeAudit(tx, actor, { action: 'deleteModel', target: { type: 'Model', id }, detail: { name: row.name, versions: versions.length } });
    return tx.update(model).set({ deletedAt: Date.now() }).where(eq(model.id, id)).returning().get();
  });
}

/** Leaves a tombstone of one version: its metadata and hashes stay, its files and aliases go. */
export function deleteModelVersion({ db }: { db: Db }, actor: Actor, id: string): ModelVersion {
  return inUrgentTransaction(db, (tx) => {
    const version = findModelVersion(tx, id) ?? notFound('model version');
    bury(tx, version);
    const target = { type: 'ModelVersion', id };
    writeAudit(tx, actor, { action: 'deleteModelVersion', target, detail: { modelId: version.modelId, number: version.number } });
    return tx.select().from(modelVersion).where(eq(modelVersion.id, id)).get() as ModelVersion;
  });
}

function bury(tx: Queryable, version: ModelVersion): void {
  const { id, jobId, number } = version;
  requireUnused(tx, { id, jobId, what: `version ${number}` });
  requireNotDeployed(tx, version);
  dropArtifacts(tx, 'MODEL_VERSION', version.id);
  tx.delete(modelAlias).where(eq(modelAlias.versionId, version.id)).run();
  tx.update(modelVersion).set({ deletedAt: Date.now() }).where(eq(modelVersion.id, version.id)).run();
}
