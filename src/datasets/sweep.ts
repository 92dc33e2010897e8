import { setImmediate } from 'node:timers/promises';
import { and, eq, exists, gte, inArray, isNotNull, lt, max, or, type SQL } from 'drizzle-orm';
import { type Db, inUrgentTransaction } from '../db.ts';
import { sweepCache } from './imageFiles.ts';
import { datasetItem, datasetVersion } from './tables.ts';

/** Items of a transaction: those of 10 classes each keep the event loop for 25 ms. */
const itemsChunk = 1000;

/** Removes the items of a version, in transactions that leave others their turn, as long as `when` holds. */
export async function removeItems(db: Db, versionId: string, when?: SQL): Promise<void> {
  const mine = eq(datasetItem.versionId, versionId);
  const last =
    db
      .select({ n: max(datasetItem.n) })
      .from(datasetItem)
      .where(mine)
      .get()?.n ?? -1;
  for (let n = 0; n <= last; n += itemsChunk) {
    const chunk = and(mine, gte(datasetItem.n, n), lt(datasetItem.n, n + itemsChunk), when);
    inUrgentTransaction(db, (tx) => tx.delete(datasetItem).where(chunk).run());
    await setImmediate();
  }
}

/**
 * Removes what deleted and failed versions leave: the rows of their items. To be called at the start, and now and
 * then.
 */
export async function sweepDatasets({ config, db }: { config: { dataDir: string }; db: Db }): Promise<void> {
  const isUseless = or(isNotNull(datasetVersion.deletedAt), eq(datasetVersion.state, 'FAILED'));
  const useless = db.select({ id: datasetVersion.id }).from(datasetVersion).where(isUseless);
  const items = db.select({ n: datasetItem.n }).from(datasetItem).where(eq(datasetItem.versionId, datasetVersion.id));
  for (const { id } of db
    .select({ id: datasetVersion.id })
    .from(datasetVersion)
    .where(and(isUseless, exists(items)))
    .all()) {
    // A failed import that is tried again inserts its own.
    await removeItems(db, id, inArray(datasetItem.versionId, useless));
  }
  await sweepCache(config.dataDir);
}
