import { sql } from 'drizzle-orm';
import { expect, test, vi } from 'vitest';
import { fillAsMigration7, suspendedJobs } from './support/earlier.ts';
import { withFolder, withServer } from './support/server.ts';

test(
  'jobs of each kind that an earlier version has suspended go on where they were, and what it had registered twice is there once',
  () =>
    withFolder((folder) =>
      withFolder(async (dataDir) => {
        await fillAsMigration7(dataDir, folder);
        await withServer(
          async ({ services: { db } }) => {
            const all = <T>(query: ReturnType<typeof sql>) => db.all<T>(query);
            expect(all(sql`SELECT id FROM evaluation`)).toEqual([{ id: 'evaluated 3' }]);
            expect(all(sql`SELECT kind, count(*) AS n FROM artifact WHERE ownerId = 'checkpoint' GROUP BY kind ORDER BY kind`)).toEqual([
              { kind: 'CHECKPOINT', n: 1 },
              { kind: 'EVALUATION', n: 1 },
              { kind: 'WEIGHTS', n: 1 },
            ]);
            expect(all(sql`SELECT epoch FROM metric_point WHERE jobId = 'trained'`)).toEqual([{ epoch: 2 }]);
            const subjects = sql`SELECT kind || ' ' || subjectId AS about FROM job_subject JOIN job ON job.id = jobId ORDER BY 1`;
            expect(all<{ about: string }>(subjects).map(({ about }) => about)).toEqual([
              'BENCHMARK onnx',
              'CONVERT checkpoint',
              'CONVERT data',
              'EVALUATE data',
              'EVALUATE onnx',
              'IMPORT_DATASET data',
              'IMPORT_DATASET second data',
              'IMPORT_MODEL imported',
              'TRAIN data',
              'TRAIN model',
            ]);

            const live = sql`SELECT id FROM job WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')`;
            await vi.waitUntil(() => all(live).length === 0, { timeout: 500_000, interval: 50 });
            const ended = all<{ id: string }>(
              sql`SELECT id, state, failureMessage, attemptNumber FROM job WHERE specVersion = 1 AND nextSeq > 2`,
            );
            const expected = Object.values(suspendedJobs).map((id) => ({ id, state: 'SUCCEEDED', failureMessage: null, attemptNumber: 2 }));
            expect(ended.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(expected.toSorted((a, b) => (a.id < b.id ? -1 : 1)));
            // The training from its checkpoint; as in that version it is followed by its conversion.
            expect(
              db.get<{ resumedJson: string }>(sql`SELECT resumedJson FROM attempt WHERE jobId = 'train' AND number = 2`).resumedJson,
            ).toMatch(/"epoch":0,"batch":[1-9]/);
            expect(all(sql`SELECT kind, state FROM job WHERE parentId = 'train'`)).toEqual([{ kind: 'CONVERT', state: 'SUCCEEDED' }]);
          },
          { WHETSTONE_DATA_DIR: dataDir },
        );
      }),
    ),
  600_000,
);
