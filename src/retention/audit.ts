/**
 * The audit log is cut from its beginning, a batch at a time. A batch is first appended to `audit/<day>.jsonl` in the data folder and synced, then
 * removed from the database: a crash in between loses nothing, and leaves lines in two files at worst, each with its `seq`.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { asc, gt, inArray, max } from 'drizzle-orm';
import { type AuditRow, audit } from '../accounts/tables.ts';
import { jsonLine } from '../canonical.ts';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';

/** Lines that stay in the database: further ones push out the oldest, but none of the last day, which the database itself keeps. */
export const auditRowsMax = 1_000_000;
const batchRows = 1000;
const dayMs = 86_400_000;

const folderOf = (dataDir: string): string => join(dataDir, 'audit');
const isFile = /^(\d{4}-\d\d-\d\d)\.jsonl$/;

/** The lines that are from before a moment, or too many; from the oldest on, until none of a batch is. */
function* dueLines(db: Queryable, before: number): Generator<AuditRow[]> {
  const newest = db
    .select({ seq: max(audit.seq) })
    .from(audit)
    .get()?.seq;
  const firstKept = (newest ?? 0) - auditRowsMax + 1;
  const yesterday = Date.now() - dayMs - 60_000;
  for (let behind = 0; ; ) {
    const rows = db.select().from(audit).where(gt(audit.seq, behind)).orderBy(asc(audit.seq)).limit(batchRows).all();
    const due = rows.filter(({ seq, at }) => at < before || (seq < firstKept && at < yesterday));
    if (due.length === 0) return;
    behind = rows.at(-1)?.seq ?? 0;
    yield due;
  }
}

export function countDueAudit(db: Queryable, before: number): number {
  let count = 0;
  for (const rows of dueLines(db, before)) count += rows.length;
  return count;
}

export async function cutAudit({ config, db }: { config: { dataDir: string }; db: Db }, before: number): Promise<void> {
  const folder = folderOf(config.dataDir);
  const path = join(folder, `${new Date().toISOString().slice(0, 10)}.jsonl`);
  for (const rows of dueLines(db, before)) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    append(path, rows.map((row) => jsonLine({ ...row, at: new Date(row.at).toISOString() })).join(''));
    const seqs = rows.map(({ seq }) => seq);
    inUrgentTransaction(db, (tx) => tx.delete(audit).where(inArray(audit.seq, seqs)).run());
    await setImmediate();
  }
}

/** All or nothing. A crash may have left a line without its end: the next one must not become part of it. */
function append(path: string, text: string): void {
  const file = openSync(path, 'a+', 0o600);
  try {
    const last = Buffer.from('\n');
    const { size } = fstatSync(file);
    if (size > 0) readSync(file, last, 0, 1, size - 1);
    const bytes = Buffer.from(last.toString() === '\n' ? text : `\n${text}`);
    try {
      for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written);
      fsyncSync(file);
    } catch (error) {
      ftruncateSync(file, size);
      throw error;
    }
  } finally {
    closeSync(file);
  }
}

/** The exported files of days before a moment. */
export function oldAuditFiles(dataDir: string, before: number): string[] {
  const day = new Date(before).toISOString().slice(0, 10);
  const names = existsSync(folderOf(dataDir)) ? readdirSync(folderOf(dataDir)) : [];
  return names.filter((name) => (isFile.exec(name)?.[1] ?? '~') < day).map((name) => join(folderOf(dataDir), name));
}

export function removeAuditFiles(dataDir: string, before: number): void {
  for (const path of oldAuditFiles(dataDir, before)) rmSync(path);
}
