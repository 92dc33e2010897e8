import { and, asc, count, eq, notInArray, sql } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { findDataset, findDatasetVersion } from '../datasets/datasets.ts';
import { type Db, inTransaction, prepared, type Queryable } from '../db.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { findJob } from '../jobs/jobs.ts';
import { findModel, findModelVersion } from '../models/models.ts';
import { unprintable } from '../naming.ts';
import { type Tag, tag } from './tables.ts';

/** What can have tags, by the name of its type, with the function that finds it. */
export const taggable = {
  Dataset: findDataset,
  DatasetVersion: findDatasetVersion,
  Job: findJob,
  Model: findModel,
  ModelVersion: findModelVersion,
} satisfies Record<string, (db: Queryable, id: string) => unknown>;
export type Taggable = keyof typeof taggable;

/** Of one thing. */
export const tagsMax = 50;

const TagsInput = z.object({
  tags: z
    .array(
      z.object({
        key: z
          .string()
          .normalize('NFC')
          .regex(
            /^[\p{L}\p{N}][\p{L}\p{M}\p{N}._/-]{0,99}$/u,
            'A key has 1 to 100 letters, digits, dots, slashes, dashes or underscores, and starts with a letter or digit.',
          ),
        value: z
          .string()
          .max(500, 'A value has at most 500 characters.')
          .refine((value) => !unprintable.test(value), 'A value has no line ends and no control characters.')
          .nullish(),
      }),
    )
    .min(1, 'Name a tag.')
    .max(tagsMax, `At most ${tagsMax} tags can be set at once.`)
    .refine((tags) => new Set(tags.map(({ key }) => key)).size === tags.length, 'The same key is there twice.'),
});

/** Sets tags of one thing, each in the place of the one with its key; those without a value are removed. Returns all that it has then. */
export function setTags({ db }: { db: Db }, actor: Actor, type: Taggable, id: string, raw: unknown): Tag[] {
  const { tags } = parseInput(TagsInput, raw);
  return inTransaction(db, (tx) => {
    if (!taggable[type](tx, id)) notFound(type);
    const others = and(
      eq(tag.subjectId, id),
      notInArray(
        tag.key,
        tags.map(({ key }) => key),
      ),
    );
    const set = tags.flatMap(({ key, value }) => (value == null ? [] : { subjectId: id, key, value }));
    const kept = tx.select({ count: count() }).from(tag).where(others).get()?.count ?? 0;
    if (kept + set.length > tagsMax) refuse('LIMIT', 'tags', `One ${type} has at most ${tagsMax} tags: remove some first.`);
    for (const { key, value } of tags) {
      if (value == null)
        tx.delete(tag)
          .where(and(eq(tag.subjectId, id), eq(tag.key, key)))
          .run();
    }
    if (set.length > 0) {
      tx.insert(tag)
        .values(set)
        .onConflictDoUpdate({ target: [tag.subjectId, tag.key], set: { value: sql`excluded.value` } })
        .run();
    }
    writeAudit(tx, actor, { action: 'setTags', target: { type, id }, detail: { keys: tags.map(({ key }) => key) } });
    return tagsOf(tx, id);
  });
}

const tagsQuery = prepared((db) =>
  db
    .select()
    .from(tag)
    .where(eq(tag.subjectId, sql.placeholder('subjectId')))
    .orderBy(asc(tag.key))
    .prepare(),
);

/** By their keys. */
export const tagsOf = (db: Queryable, subjectId: string): Tag[] => tagsQuery(db).all({ subjectId });
