import { randomUUIDv7 } from 'node:crypto';
import { and, asc, desc, eq, exists, gt, inArray, isNull, lt, max, type SQL, sql } from 'drizzle-orm';
import { countUpTo, type Queryable } from '../db.ts';
import { hasTags, type TagFilter, wantedTags } from '../tags/filter.ts';
import { hasMetrics, type MeasuredFilter } from '../training/search.ts';
import { type Model, type ModelAlias, type ModelVersion, model, modelAlias, modelVersion } from './tables.ts';

export function findModel(db: Queryable, id: string): Model | undefined {
  return db
    .select()
    .from(model)
    .where(and(eq(model.id, id), isNull(model.deletedAt)))
    .get();
}

/** Deleted or not. */
export function findModelEver(db: Queryable, id: string): Model | undefined {
  return db.select().from(model).where(eq(model.id, id)).get();
}

export function findModelByName(db: Queryable, name: string): Model | undefined {
  return db
    .select()
    .from(model)
    .where(and(eq(model.name, name.normalize('NFC')), isNull(model.deletedAt)))
    .get();
}

/** A version that was not deleted. */
export function findModelVersion(db: Queryable, id: string): ModelVersion | undefined {
  return db
    .select()
    .from(modelVersion)
    .where(and(eq(modelVersion.id, id), isNull(modelVersion.deletedAt)))
    .get();
}

/** Deleted or not. */
export function findModelVersionEver(db: Queryable, id: string): ModelVersion | undefined {
  return db.select().from(modelVersion).where(eq(modelVersion.id, id)).get();
}

export interface ModelFilter extends Pick<MeasuredFilter, 'metrics'> {
  nameContains?: string | null;
  task?: Model['task'] | null;
  alias?: string | null;
  format?: ModelVersion['format'] | null;
  tags?: readonly TagFilter[] | null;
}

/** How a list is ordered: the key of a row, and what stands behind a key. */
export const modelOrders = {
  NAME: { key: (m: Model) => m.name, behind: (key: string) => gt(model.name, key), by: asc(model.name) },
  // Ids are UUIDv7: they grow with the time of creation.
  CREATED_AT: { key: (m: Model) => m.id, behind: (key: string) => lt(model.id, key), by: desc(model.id) },
} as const;
export type ModelOrder = keyof typeof modelOrders;

export function listModels(db: Queryable, filter: ModelFilter, order: ModelOrder, limit: number, after: string | null): Model[] {
  const { behind, by } = modelOrders[order];
  return db
    .select()
    .from(model)
    .where(and(after === null ? undefined : behind(after), listed(db, filter)))
    .orderBy(by)
    .limit(limit)
    .all();
}

export const countModels = (db: Queryable, filter: ModelFilter): number => countUpTo(db, model, listed(db, filter));

function listed(db: Queryable, { nameContains, task, alias, format, tags, metrics }: ModelFilter): SQL | undefined {
  const wanted = wantedTags(tags);
  const has = (table: typeof modelAlias | typeof modelVersion, condition: SQL | undefined) =>
    exists(
      db
        .select({ one: sql`1` })
        .from(table)
        .where(and(eq(table.modelId, model.id), condition)),
    );
  const ready = and(eq(modelVersion.state, 'READY'), isNull(modelVersion.deletedAt));
  return and(
    isNull(model.deletedAt),
    nameContains ? sql`instr(lower(${model.name}), lower(${nameContains})) > 0` : undefined,
    task ? eq(model.task, task) : undefined,
    wanted ? hasTags(model.id, wanted) : undefined,
    alias ? has(modelAlias, eq(modelAlias.name, alias)) : undefined,
    format ? has(modelVersion, and(eq(modelVersion.format, format), ready)) : undefined,
    ...hasMetrics(modelVersion.id, 'modelVersionId', { metrics }).map((isMeasured) =>
      inArray(model.id, db.select({ id: modelVersion.modelId }).from(modelVersion).where(and(ready, isMeasured))),
    ),
  );
}

/** Versions of a model, newest first, behind number `after`. */
export function listModelVersions(db: Queryable, modelId: string, limit: number, after: number | null): ModelVersion[] {
  return db
    .select()
    .from(modelVersion)
    .where(
      and(eq(modelVersion.modelId, modelId), isNull(modelVersion.deletedAt), after === null ? undefined : lt(modelVersion.number, after)),
    )
    .orderBy(desc(modelVersion.number))
    .limit(limit)
    .all();
}

export function listAliases(db: Queryable, modelId: string): ModelAlias[] {
  return db.select().from(modelAlias).where(eq(modelAlias.modelId, modelId)).orderBy(asc(modelAlias.name)).all();
}

/** A version by its number or by an alias; without either the newest that is READY. */
export function chooseModelVersion(
  db: Queryable,
  modelId: string,
  { number, alias }: { number?: number | null; alias?: string | null },
): ModelVersion | undefined {
  const aliased = alias
    ? db
        .select({ id: modelAlias.versionId })
        .from(modelAlias)
        .where(and(eq(modelAlias.modelId, modelId), eq(modelAlias.name, alias)))
    : undefined;
  return db
    .select()
    .from(modelVersion)
    .where(
      and(
        eq(modelVersion.modelId, modelId),
        isNull(modelVersion.deletedAt),
        number ? eq(modelVersion.number, number) : undefined,
        aliased ? inArray(modelVersion.id, aliased) : undefined,
        number || aliased ? undefined : eq(modelVersion.state, 'READY'),
      ),
    )
    .orderBy(desc(modelVersion.number))
    .get();
}

export function insertModel(tx: Queryable, values: Pick<Model, 'name' | 'task' | 'notes' | 'createdById'>): Model {
  return tx
    .insert(model)
    .values({ id: randomUUIDv7(), createdAt: Date.now(), ...values })
    .returning()
    .get();
}

/** The number of a model's next version; those of deleted ones are not given again. */
export function nextNumber(tx: Queryable, modelId: string): number {
  const last = tx
    .select({ number: max(modelVersion.number) })
    .from(modelVersion)
    .where(eq(modelVersion.modelId, modelId))
    .get();
  return (last?.number ?? 0) + 1;
}
