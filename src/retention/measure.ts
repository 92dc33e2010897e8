/** What uses how much, in a thread: it reads all pages of the database (0.2 s for a million points of curves) and walks the data folder. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { databaseFile } from '../db.ts';
import { type Amount, filesAtAll, nothing, sumOf } from './files.ts';
import { type RetentionConfig, type RetentionServices, type Store, type StoreName, stores } from './stores.ts';

export interface StoreUse extends Amount {
  name: StoreName;
  /** What the next sweep would remove. */
  due: Amount;
}

/** `days` in place of the settings that are an age: what is due then. */
export async function measureStores(config: RetentionConfig, days: number | null): Promise<StoreUse[]> {
  const client = new Sqlite(join(config.dataDir, databaseFile), { readonly: true });
  try {
    const pages = client.prepare(
      'SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) WHERE aggregate = TRUE GROUP BY tbl_name',
    );
    const bytesOf = new Map(pages.raw().all() as [string, number][]);
    const services: RetentionServices = { config, db: drizzle(client) };
    const names = await readdir(config.dataDir);
    const used: StoreUse[] = [];
    for (const [name, store] of Object.entries(stores) as [StoreName, Store][])
      used.push(await measure(services, name, store, days, bytesOf, names));
    return used;
  } finally {
    client.close();
  }
}

async function measure(
  services: RetentionServices,
  name: StoreName,
  store: Store,
  days: number | null,
  bytesOf: ReadonlyMap<string, number>,
  names: readonly string[],
): Promise<StoreUse> {
  const { config, db } = services;
  const tables = store.tables ?? [];
  const rows: Amount = {
    count: tables[0] === undefined ? 0 : Number(db.$client.prepare(`SELECT count(*) FROM "${tables[0]}"`).pluck().get()),
    sizeBytes: tables.reduce((sum, table) => sum + (bytesOf.get(table) ?? 0), 0),
  };
  const files = names.filter((one) => store.files?.test(one)).map((one) => join(config.dataDir, one));
  const total = store.measure ? await store.measure(services) : sumOf([rows, await filesAtAll(files)]);
  const before = removedBefore(store, config, days);
  const due = before === null ? nothing : ((await store.due?.(services, before)) ?? nothing);
  const share = (count: number): Amount => ({ count, sizeBytes: Math.round((rows.sizeBytes * count) / Math.max(1, rows.count)) });
  return { name, ...total, due: typeof due === 'number' ? share(due) : due };
}

/** The moment before which a store's things go; null where they stay. */
export function removedBefore({ age }: Store, config: RetentionConfig, days: number | null = null): number | null {
  if (age === undefined) return Date.now();
  const kept = days ?? config[age];
  return kept === undefined ? null : Date.now() - kept * 86_400_000;
}
