import { and, asc, desc, eq, getTableColumns, gt, gte, inArray, isNull, lt, type SQL, sql } from 'drizzle-orm';
import { countUpTo, type Queryable } from '../db.ts';
import { hasTags, type TagFilter, wantedTags } from '../tags/filter.ts';
import {
  type Dataset,
  type DatasetBox,
  type DatasetCounts,
  type DatasetItemRow,
  type DatasetVersion,
  dataset,
  datasetItem,
  datasetItemLabel,
  datasetVersion,
  splits,
} from './tables.ts';

export function findDataset(db: Queryable, id: string): Dataset | undefined {
  return db
    .select()
    .from(dataset)
    .where(and(eq(dataset.id, id), isNull(dataset.deletedAt)))
    .get();
}

export function findDatasetByName(db: Queryable, name: string): Dataset | undefined {
  return db
    .select()
    .from(dataset)
    .where(and(eq(dataset.name, name.normalize('NFC')), isNull(dataset.deletedAt)))
    .get();
}

/** Deleted or not. */
export function findDatasetEver(db: Queryable, id: string): Dataset | undefined {
  return db.select().from(dataset).where(eq(dataset.id, id)).get();
}

/** Deleted or not. */
export function findVersionEver(db: Queryable, id: string): DatasetVersion | undefined {
  return db.select().from(datasetVersion).where(eq(datasetVersion.id, id)).get();
}

/** A version that was not deleted. */
export function findDatasetVersion(db: Queryable, id: string): DatasetVersion | undefined {
  return db
    .select()
    .from(datasetVersion)
    .where(and(eq(datasetVersion.id, id), isNull(datasetVersion.deletedAt)))
    .get();
}

/** The READY version of a dataset that has this content. */
export function findContent(db: Queryable, datasetId: string, contentHash: string): DatasetVersion | undefined {
  const ready = and(eq(datasetVersion.state, 'READY'), isNull(datasetVersion.deletedAt));
  return db
    .select()
    .from(datasetVersion)
    .where(and(eq(datasetVersion.datasetId, datasetId), eq(datasetVersion.contentHash, contentHash), ready))
    .get();
}

/** The version with this number; without one the newest that is READY. */
export function chooseDatasetVersion(db: Queryable, datasetId: string, number: number | null | undefined): DatasetVersion | undefined {
  return db
    .select()
    .from(datasetVersion)
    .where(
      and(
        eq(datasetVersion.datasetId, datasetId),
        isNull(datasetVersion.deletedAt),
        number ? eq(datasetVersion.number, number) : eq(datasetVersion.state, 'READY'),
      ),
    )
    .orderBy(desc(datasetVersion.number))
    .get();
}

export interface DatasetFilter {
  nameContains?: string | null;
  task?: Dataset['task'] | null;
  tags?: readonly TagFilter[] | null;
}

/** How a list is ordered: the key of a row, and what stands behind a key. */
export const datasetOrders = {
  NAME: { key: (d: Dataset) => d.name, behind: (key: string) => gt(dataset.name, key), by: asc(dataset.name) },
  // Ids are UUIDv7: they grow with the time of creation.
  CREATED_AT: { key: (d: Dataset) => d.id, behind: (key: string) => lt(dataset.id, key), by: desc(dataset.id) },
} as const;
export type DatasetOrder = keyof typeof datasetOrders;

export function listDatasets(db: Queryable, filter: DatasetFilter, order: DatasetOrder, limit: number, after: string | null): Dataset[] {
  const { behind, by } = datasetOrders[order];
  return db
    .select()
    .from(dataset)
    .where(and(after === null ? undefined : behind(after), listed(filter)))
    .orderBy(by)
    .limit(limit)
    .all();
}

export const countDatasets = (db: Queryable, filter: DatasetFilter): number => countUpTo(db, dataset, listed(filter));

function listed({ nameContains, task, tags }: DatasetFilter): SQL | undefined {
  const wanted = wantedTags(tags);
  return and(
    isNull(dataset.deletedAt),
    nameContains ? sql`instr(lower(${dataset.name}), lower(${nameContains})) > 0` : undefined,
    task ? eq(dataset.task, task) : undefined,
    wanted ? hasTags(dataset.id, wanted) : undefined,
  );
}

const isLiveVersionOf = (datasetId: string) => and(eq(datasetVersion.datasetId, datasetId), isNull(datasetVersion.deletedAt));

export const countDatasetVersions = (db: Queryable, datasetId: string): number => countUpTo(db, datasetVersion, isLiveVersionOf(datasetId));

/** Versions of a dataset, newest first, behind number `after`. */
export function listDatasetVersions(db: Queryable, datasetId: string, limit: number, after: number | null): DatasetVersion[] {
  return db
    .select()
    .from(datasetVersion)
    .where(and(isLiveVersionOf(datasetId), after === null ? undefined : lt(datasetVersion.number, after)))
    .orderBy(desc(datasetVersion.number))
    .limit(limit)
    .all();
}

export interface ItemFilter {
  split?: DatasetItemRow['split'] | null;
  /** Name of a class. */
  class?: string | null;
}

export type Item = Omit<DatasetItemRow, 'boxesJson'> & { class: string | null; boxes: ItemBox[] | null };
export type ItemBox = DatasetBox & { class: string };

function named({ boxesJson, ...row }: DatasetItemRow, { classesJson }: Pick<DatasetVersion, 'classesJson'>): Item {
  const nameOf = (label: number) => classesJson?.[label] ?? '';
  return {
    ...row,
    class: row.label === null ? null : nameOf(row.label),
    boxes: boxesJson?.map((box) => ({ ...box, class: nameOf(box.label) })) ?? null,
  };
}

/** Items of a READY version behind item `after`, by n: sorted by split, then by path. Of a class are those that show it. */
export function listItems(db: Queryable, version: DatasetVersion, filter: ItemFilter, limit: number, after: number | null): Item[] {
  const { id, state, deletedAt, classesJson, countsJson } = version;
  const label = filter.class ? (classesJson ?? []).indexOf(filter.class) : null;
  if (state !== 'READY' || deletedAt !== null || countsJson === null || label === -1) return [];
  const [first, end] = placesOf(countsJson, filter.split);
  const wanted = (n: typeof datasetItem.n | typeof datasetItemLabel.n) => and(gte(n, Math.max(first, (after ?? -1) + 1)), lt(n, end));
  const items = db.select(getTableColumns(datasetItem)).from(datasetItem).$dynamic();
  const ofClass = and(eq(datasetItemLabel.versionId, id), eq(datasetItemLabel.label, label ?? -1), wanted(datasetItemLabel.n));
  const found =
    label === null
      ? items.where(and(eq(datasetItem.versionId, id), wanted(datasetItem.n)))
      : items
          .innerJoin(datasetItemLabel, and(eq(datasetItemLabel.versionId, datasetItem.versionId), eq(datasetItemLabel.n, datasetItem.n)))
          .where(ofClass);
  return found
    .orderBy(asc(label === null ? datasetItem.n : datasetItemLabel.n))
    .limit(limit)
    .all()
    .map((row) => named(row, version));
}

/** The places of a split's items, the end excluded; without a split those of all. */
function placesOf({ items, images }: DatasetCounts, split: ItemFilter['split']): [number, number] {
  if (!split) return [0, items];
  const before = splits.slice(0, splits.indexOf(split)).reduce((sum, name) => sum + images[name], 0);
  return [before, before + images[split]];
}

/** The items at these places; none of a deleted version. */
export function listItemsAt(db: Queryable, versionId: string, places: number[]): DatasetItemRow[] {
  return db
    .select()
    .from(datasetItem)
    .where(and(eq(datasetItem.versionId, versionId), inArray(datasetItem.n, places)))
    .all();
}

/** An item of a READY version. */
export function findItem(db: Queryable, versionId: string, n: number): Item | undefined {
  const version = findDatasetVersion(db, versionId);
  const mine = and(eq(datasetItem.versionId, versionId), eq(datasetItem.n, n));
  const row = version?.state === 'READY' ? db.select().from(datasetItem).where(mine).get() : undefined;
  return version && row && named(row, version);
}
