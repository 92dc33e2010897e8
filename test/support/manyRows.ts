/** A database in which everything is as large as the product lets it become: what the dearest documents read. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { sql } from 'drizzle-orm';
import { insertSession } from '../../src/accounts/sessions.ts';
import { audit, user } from '../../src/accounts/tables.ts';
import { dataset, datasetItem, datasetItemLabel, datasetVersion } from '../../src/datasets/tables.ts';
import { type Db, inTransaction, openDatabase, rowInsert } from '../../src/db.ts';
import { enqueue } from '../../src/jobs/enqueue.ts';
import { appendEvent } from '../../src/jobs/events.ts';
import { logPath } from '../../src/jobs/logs.ts';
import { presets } from '../../src/jobs/presets.ts';
import { metricPoint } from '../../src/jobs/tables.ts';
import { model, modelVersion } from '../../src/models/tables.ts';
import { evaluation, evaluationFindings } from '../../src/training/tables.ts';
import { settingsOf } from '../../src/tuning/settings.ts';
import { study, trial } from '../../src/tuning/tables.ts';
import { presetPreprocess } from '../../src/vision/spec.ts';
import { nobody } from './jobs.ts';
import { storeBenchmark, storeVersions } from './reports.ts';
import { withFolder, withServer } from './server.ts';
import type { Api } from './training.ts';

/** Items of a list that is read as one page. */
const many = 100;
const classesMany = 10_000;
const trialsMany = 1000;

const administrator = { userId: 'user-0', familyId: 'family' };

/** Runs `use` with the API of a server on such a database, as an administrator. */
export const withManyRows = (use: (api: Api) => Promise<void>): Promise<void> =>
  withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    try {
      await fillWithManyRows(db, dataDir);
    } finally {
      close();
    }
    const { userId, familyId } = administrator;
    await withServer(async ({ url, services }) => use({ url, token: await services.tokens.sign(userId, familyId) }), {
      WHETSTONE_DATA_DIR: dataDir,
    });
  });

async function fillWithManyRows(db: Db, dataDir: string): Promise<void> {
  // It is measured how long reading takes, not writing.
  db.$client.pragma('synchronous = OFF');
  const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
  const classes = numbers(classesMany).map((n) => `class number ${n}`);
  const createdAt = 0;

  storeVersions(db, numbers(many));
  for (const n of numbers(many))
    await storeBenchmark(
      db,
      numbers(20).map((i) => ({ latencyMs: 10 + i })),
      [n],
    );

  inTransaction(db, (tx) => {
    for (const n of numbers(many)) {
      tx.insert(user)
        .values({ id: `user-${n}`, name: `user-${n}`, passwordHash: '', role: 'ADMIN', createdAt })
        .run();
      tx.insert(audit).values({ at: n, action: 'something', outcome: 'OK', detailJson: { n } }).run();
      tx.insert(dataset)
        .values({ id: `set-${n}`, name: `set-${n}`, task: 'DETECTION', createdAt })
        .run();
      tx.insert(model)
        .values({ id: `model-${n}`, name: `model-${n}`, task: 'CLASSIFICATION', createdAt })
        .run();
    }

    insertSession(tx, administrator.userId, administrator.familyId, { client: null, address: '' });

    // A dataset of which each version has all classes that a dataset may have.
    const each = classes.map((_, n) => n);
    const bySplit = { train: each, val: each, test: each };
    const images = { train: 1_000_000, val: 100_000, test: 0 };
    const countsJson = { items: 1_100_000, images, bySplit, boxesBySplit: bySplit, duplicatesAcrossSplits: 0 };
    for (const n of numbers(many)) {
      const content = { contentHash: `${n}`.padStart(64, '0'), splitSeed: 0, classesJson: classes, countsJson };
      tx.insert(datasetVersion)
        .values({ id: `set-0-${n}`, datasetId: 'set-0', number: n + 1, state: 'READY', ...content, createdAt })
        .run();
    }
    const insertItem = rowInsert(datasetItem);
    const insertLabel = rowInsert(datasetItemLabel);
    const boxesJson = numbers(300).map((n) => ({ label: n, x: n, y: n, width: 10.5, height: 20.25 }));
    for (const n of numbers(many)) {
      const where = { split: 'train', path: `train/${n}.jpg`, sha256: 'a'.repeat(64), width: 1000, height: 1000 } as const;
      insertItem(tx, { versionId: 'set-0-0', n, ...where, label: null, boxesJson, thumbnailOffset: 0, thumbnailBytes: 1 });
      for (const label of numbers(300)) insertLabel(tx, { versionId: 'set-0-0', n, label });
    }

    const { preset, hyperparameters } = { preset: 'resnet50', hyperparameters: presets.resnet50.hyperparameters.parse({}) } as const;
    // Studies, the first of which has all trials that one may have, none better than another.
    const space = [{ name: 'learningRate', low: 0.001, high: 0.1, log: true }];
    const asked = { preset, space, sampler: 'NSGA2', objectives: ['TOP1', 'MACS'], population: 100, seed: 0, registerMax: 1 } as const;
    const settingsJson = settingsOf({ ...asked, init: { from: 'SCRATCH' }, device: 'cpu' } as never, 1, []);
    for (const n of numbers(many)) {
      const { id: jobId } = enqueue(tx, nobody, { kind: 'TUNE', spec: { studyId: `study-${n}` } });
      const of = { jobId, modelId: 'model-0', datasetVersionId: 'set-0-0', settingsJson, importanceJson: [], createdAt: n };
      tx.insert(study)
        .values({ id: `study-${n}`, ...of, trials: trialsMany })
        .run();
    }
    for (const n of numbers(trialsMany)) {
      const result = { outcome: 'COMPLETE' as const, valuesJson: [n, n], epochs: 9 };
      const studyId = `study-${many - 1}`;
      tx.insert(trial)
        .values({ studyId, number: n, generation: 0, paramsJson: { learningRate: 0.001 + n / 1e5 }, hash: `${n}`, ...result })
        .run();
    }
    // Trainings, the newest with curves and logs; what they made, with as many labels; evaluations of the first.
    const insertPoint = rowInsert(metricPoint);
    const port = (name: string, shape: (string | number)[]) => [{ name, elementType: 'FLOAT', shape: ['batch', ...shape] }];
    const signatureJson = {
      ...{
        inputs: port('image', [3, 224, 224]),
        outputs: port('y', [classesMany]),
        opsets: { 'ai.onnx': 18 },
        irVersion: 9,
        producer: 'x',
      },
      operators: Object.fromEntries(numbers(100).map((n) => [`Operator${n}`, n])),
      metadata: Object.fromEntries(numbers(50).map((n) => [`key ${n}`, 'x'.repeat(1000)])),
      ...{ parameters: 1, elementTypes: { FLOAT: 1 }, labels: classes, preprocess: null, metadataTruncated: false, weightsHash: null },
      exporter: null,
    };
    const findingsJson = {
      worst: numbers(50).map((n) => ({ n, label: n, predicted: n + 1, probability: 0.1, loss: 9 })),
      labelErrors: { count: 50, images: numbers(50).map((n) => ({ n, label: n, predicted: n + 1, probability: 0.1, loss: 9 })) },
      confused: numbers(20).map((n) => ({ label: n, predicted: n + 1, count: 9, examples: [1, 2, 3, 4, 5, 6] })),
    };
    for (const n of numbers(many)) {
      const spec = { modelId: 'model-0', datasetVersionId: 'set-0-0', preset, hyperparameters, init: { from: 'SCRATCH' }, seed: 0 };
      const { id: jobId } = enqueue(tx, nobody, { kind: 'TRAIN', spec });
      for (const i of numbers(n >= many - 30 ? 20 * 200 : 0))
        insertPoint(tx, { jobId, name: `m${i % 20}`, step: i, epoch: i, value: i, attemptNumber: 1 });
      for (const epoch of numbers(many)) appendEvent(tx, jobId, 1, { type: 'EPOCH', payload: { epoch, step: epoch, metrics: {} } });
      const about = { state: 'READY', format: 'ONNX', precision: 'FP32', origin: 'TRAINED', preset, jobId } as const;
      const described = { signatureJson, labelsJson: classes, preprocessJson: { ...presetPreprocess(224) } };
      tx.insert(modelVersion)
        .values({ id: `z-${n}`, modelId: 'model-0', number: n + 1, ...about, ...described, createdAt })
        .run();
      const measured = { modelVersionId: 'z-0', datasetVersionId: 'set-0-0', split: 'val', engine: 'torch' } as const;
      const metricsJson = { images: 100, loss: 1, top1: 0.5, top5: 0.5, macroTop1: 0.5 };
      tx.insert(evaluation)
        .values({ id: `evaluation-${n}`, ...measured, metricsJson, jobId, createdAt: n })
        .run();
      tx.insert(evaluationFindings)
        .values({ evaluationId: `evaluation-${n}`, findingsJson })
        .run();
      if (n < many - 10) continue;
      mkdirSync(dirname(logPath(dataDir, jobId)), { recursive: true });
      const line = (i: number) => JSON.stringify({ n: i + 1, at: 0, attemptNumber: 1, stream: 'stdout', text: 'x'.repeat(1000) });
      writeFileSync(logPath(dataDir, jobId), `${numbers(2000).map(line).join('\n')}\n`);
    }
    // A server starts none of them.
    tx.run(sql`UPDATE job SET state = 'SUCCEEDED', startedAt = createdAt, endedAt = createdAt`);
  });
}
