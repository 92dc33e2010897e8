import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { job } from '../src/jobs/tables.ts';
import { modelVersion } from '../src/models/tables.ts';
import { artifact, blob } from '../src/storage/tables.ts';
import { deleteStudy } from '../src/tuning/delete.ts';
import { appendStudyEvent, type StudyEventPayloads } from '../src/tuning/events.ts';
import { type StudyEvent, study, trial } from '../src/tuning/tables.ts';
import { continued } from '../tui/ui/format.ts';
import { digitFolders, writeZip } from './support/images.ts';
import { nobody } from './support/jobs.ts';
import { storeObjects } from './support/objects.ts';
import { type TestServer, withFolder, withServer } from './support/server.ts';
import { hasTmux, logIn as logInTerminal, whyNot, withTerminal } from './support/terminal.ts';
import { key, logIn, withTui } from './support/tui.ts';

type Stored = Pick<typeof job.$inferInsert, 'kind' | 'specJson'> & Partial<typeof job.$inferInsert>;

const storeJob = ({ services: { db } }: TestServer, stored: Stored) =>
  db
    .insert(job)
    .values({ id: stored.kind, state: 'SUCCEEDED', slotsNeeded: 1, priority: 0, createdAt: Date.now(), endedAt: Date.now(), ...stored })
    .run();

describe('the list of jobs', () => {
  test('says of every kind of job what it works on', () =>
    withServer(async (server) => {
      await server.admin();
      storeObjects(server);
      const version = { modelId: 'Model', precision: 'FP16', origin: 'CONVERTED', state: 'READY', createdAt: Date.now() } as const;
      server.services.db
        .insert(modelVersion)
        .values({ ...version, id: 'made', number: 2, format: 'ONNX' })
        .run();
      const [modelVersionId, datasetVersionId] = ['ModelVersion', 'DatasetVersion'];
      const matrix = { batchSizes: [1, 8], engines: ['ONNXRUNTIME_CPU'], intraOpThreads: [1, 2] };
      storeJob(server, { kind: 'TRAIN', specJson: { modelId: 'Model', datasetVersionId, preset: 'resnet50' } });
      storeJob(server, { kind: 'CONVERT', specJson: { modelVersionId }, resultJson: { modelVersionId: 'made' } });
      storeJob(server, { kind: 'COMPRESS', specJson: { modelVersionId, compression: { precision: 'INT8' } } });
      storeJob(server, { kind: 'EVALUATE', specJson: { modelVersionId, datasetVersionId, split: 'val' } });
      storeJob(server, { kind: 'BENCHMARK', specJson: { modelVersionIds: [modelVersionId], ...matrix } });
      storeJob(server, { kind: 'IMPORT_MODEL', specJson: { modelVersionId, fileName: 'a.onnx' } });
      storeJob(server, { kind: 'IMPORT_DATASET', specJson: { datasetVersionId, fileName: 'a.zip' } });
      storeJob(server, { kind: 'TUNE', specJson: { studyId: 'Study', modelId: 'Model', datasetVersionId } });
      storeJob(server, { kind: 'ASK', specJson: { studyId: 'Study', generation: 1, count: 2 } });
      const training = { datasetVersionId, preset: 'resnet50', modelId: null };
      storeJob(server, { id: 'training', kind: 'TRAIN', parentId: 'TUNE', specJson: training });
      server.services.db
        .insert(trial)
        .values({ studyId: 'Study', number: 7, generation: 1, hash: '', paramsJson: {}, jobId: 'training' })
        .run();
      await withTui(
        server.url,
        async (tui) => {
          await logIn(tui);
          tui.type('2');
          await tui.shows(/TRAIN +one resnet50 on one v1 /);
          await tui.shows(/CONVERT +one v1 FP32 → v2 FP16 /);
          await tui.shows(/COMPRESS +one v1 FP32 → INT8 /);
          await tui.shows(/EVALUATE +one v1 FP32 on one v1 val /);
          await tui.shows(/BENCHMARK +one v1 FP32 4 rows /);
          await tui.shows(/IMPORT_MODEL +one v1 FP32 a\.onnx /);
          await tui.shows(/IMPORT_DATASET +one v1 a\.zip /);
          await tui.shows(/TUNE +one on one v1 /);
          await tui.shows(/ASK +one generation 1 /);
          await tui.shows(/TRAIN +one trial 7 resnet50 on one v1 /);
        },
        { columns: 100 },
      );
    }));

  test('shows the trials of a study, the best first, and each as it ends', () =>
    withServer(async (server) => {
      await server.admin();
      storeObjects(server);
      const { db, bus } = server.services;
      const tell = <T extends StudyEvent['type']>(type: T, payload: StudyEventPayloads[T]) => {
        appendStudyEvent(db, 'Study', type, payload);
        bus.wake('jobEvent', 'Job');
      };
      storeJob(server, {
        kind: 'TUNE',
        state: 'RUNNING',
        endedAt: null,
        specJson: { studyId: 'Study', modelId: 'Model', datasetVersionId: 'DatasetVersion' },
      });
      const insertTrial = (number: number, top1: number | null) =>
        db
          .insert(trial)
          .values({
            ...{ studyId: 'Study', number, generation: 0, hash: String(number), paramsJson: { learningRate: 0.01 * (number + 1) } },
            ...(top1 === null ? {} : { outcome: 'COMPLETE' as const, valuesJson: [top1], epochs: 2 }),
          })
          .run();
      insertTrial(0, 0.25);
      insertTrial(1, 0.75);
      insertTrial(2, null);
      await withTui(
        server.url,
        async (tui) => {
          await logIn(tui);
          tui.type('2');
          await tui.shows(/› .*TUNE/);
          tui.type(key.enter);
          await tui.shows('2 of 2 trials  resnet50  NSGA2, generations of 2');
          await tui.shows(/ 1 \* ✓ COMPLETE +0\.75 +2 +learningRate 0\.02/);
          await tui.shows(/ 2 +· WAITING +– +0 +learningRate 0\.03/);
          const places = ['learningRate 0.02', 'learningRate 0.01', 'learningRate 0.03'].map((text) =>
            tui.lines().findIndex((line) => line.includes(text)),
          );
          expect(places).toEqual([...places].sort((a, b) => a - b));
          db.update(trial)
            .set({ outcome: 'STOPPED', valuesJson: [0.5], epochs: 1 })
            .where(eq(trial.number, 2))
            .run();
          tell('TRIAL_ENDED', {
            number: 2,
            generation: 0,
            params: {},
            outcome: 'STOPPED',
            values: [0.5],
            failure: null,
            epochs: 1,
            copyOf: null,
          });
          await tui.shows(/ 2 +○ STOPPED +0\.5/);
          db.update(study)
            .set({ importanceJson: [{ name: 'learningRate', share: 1 }] })
            .run();
          tell('GENERATION_ENDED', { generation: 0, trials: 3 });
          tui.type('c');
          await tui.shows(/TOP1 by trial +• trials 2 +\* best 1/);
          expect(tui.lines().some((line) => /[│┤].*[\u2801-\u28ff▀▄█]/.test(line))).toBe(true);
          await tui.shows(/learningRate +█+ 100 %/);
          tui.type('c');
          await tui.shows(/ 1 \* ✓ COMPLETE/);
          db.update(study).set({ trials: 4 }).run();
          tell('FRONT_CHANGED', { front: [1] });
          await tui.shows('3 of 4 trials');
          db.update(job).set({ state: 'SUCCEEDED' }).run();
          await deleteStudy(server.services, nobody, 'Study');
          await tui.shows('The study was deleted.');
        },
        { columns: 120 },
      );
    }));

  test('offers to retry a job that crashed, not one whose data are at fault', () =>
    withServer(async (server) => {
      await server.admin();
      const failed = { state: 'FAILED', specJson: {}, failureMessage: '' } as const;
      storeJob(server, { ...failed, kind: 'TRAIN', failureCode: 'POISON', createdAt: 1 });
      storeJob(server, { ...failed, kind: 'IMPORT_DATASET', failureCode: 'DATA_INVALID', createdAt: 2 });
      await withTui(server.url, async (tui) => {
        await logIn(tui);
        tui.type('2');
        await tui.shows(/› .*DATA_INVALID/);
        await tui.shows(/^ enter open /);
        expect(tui.lines().at(-1)).not.toContain('retry');
        tui.type(key.down);
        await tui.shows(/› .*POISON/);
        await tui.shows('r retry');
      });
    }));
});

describe('what is to be pasted elsewhere', () => {
  /** A version with a file, under a name that makes its link long. */
  function storeFile(server: TestServer) {
    storeObjects(server);
    const { db } = server.services;
    const sha256 = '0'.repeat(64);
    db.insert(blob).values({ sha256, sizeBytes: 1, createdAt: 1 }).run();
    db.insert(artifact)
      .values({ id: 'file', ownerType: 'MODEL_VERSION', ownerId: 'ModelVersion', kind: 'ONNX', name: 'a.onnx', sha256, createdAt: 1 })
      .run();
    db.update(modelVersion).set({ artifactId: 'file', sha256 }).run();
  }

  test('the download link of a model version comes whole into the clipboard', () =>
    withServer(async (server) => {
      await server.admin();
      storeFile(server);
      await withTui(
        server.url,
        async (tui) => {
          await logIn(tui);
          await tui.shows('o copy link');
          tui.type('o');
          await tui.shows('The link is copied if your terminal allows it, and printed when you quit.');
          expect(tui.clipboard()).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/files\/file\?\S+$/);
          expect(tui.left).toEqual([tui.clipboard()]);
          expect((await fetch(tui.clipboard(), { method: 'HEAD' })).status).not.toBe(403);
        },
        { columns: 100, first: { screen: 'model', id: 'one' } },
      );
    }));

  test.skipIf(!hasTmux)(`the download link stands whole on the terminal when the UI has closed${whyNot}`, () =>
    withServer(async (server) => {
      await server.admin();
      storeFile(server);
      await withFolder((folder) =>
        withTerminal({ folder, args: ['model', 'one', '--url', server.url] }, async (terminal) => {
          await logInTerminal(terminal);
          await terminal.shows(/› +1 ✓ READY/);
          await terminal.shows('o copy link');
          terminal.type('o');
          await terminal.shows('printed when you quit.');
          terminal.type('q');
          await terminal.shows('ended with 0');
          // The terminal itself has broken the line: nothing stands between its parts.
          expect(terminal.screen().replaceAll('\n', '')).toMatch(
            new RegExp(`${server.url}/files/file\\?.*&signature=[\\w-]{43}ended with`),
          );
        }),
      );
    }),
  );

  const command = `curl -s 'http://127.0.0.1:46071/v2/models/a-reader/predict' -H "authorization: Bearer $KEY" -H 'content-type: image/jpeg' --data-binary @image.jpg`;
  const argumentsOf = (text: string) =>
    execFileSync('sh', ['-c', `curl() { for one in "$@"; do echo "<$one>"; done; }\n${text}`], { encoding: 'utf8', env: { KEY: 'a' } });

  test.each([40, 60, 80, 200])('a command in lines of %i cells asks the same when it is pasted into a shell', (width) => {
    const lines = continued(command, width);
    expect(argumentsOf(lines.join('\n'))).toBe(argumentsOf(command));
    expect(lines.slice(0, -1).every((line) => line.endsWith(' \\'))).toBe(true);
    if (width >= 80) expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(width);
    expect(lines.length === 1).toBe(width >= command.length);
  });
});

test('a zip of the form is uploaded, and its import opens', () =>
  withServer(async (server) => {
    await server.admin();
    await withFolder(async (folder) => {
      const zip = await writeZip(join(folder, 'digits.zip'), await digitFolders([0, 1], 4));
      await withTui(
        server.url,
        async (tui) => {
          await logIn(tui);
          await tui.shows('Upload a dataset');
          tui.type(`${zip}\rdigits\rC\x13`);
          await tui.shows(/IMPORT_DATASET .*digits v1 digits\.zip/);
        },
        { first: { screen: 'upload-dataset' }, folder, columns: 120 },
      );
    });
  }));
