import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { dataset, datasetItem, datasetVersion } from '../../src/datasets/tables.ts';
import { deployment } from '../../src/deployments/tables.ts';
import { job } from '../../src/jobs/tables.ts';
import { model, modelVersion } from '../../src/models/tables.ts';
import { report } from '../../src/reports/tables.ts';
import { evaluation } from '../../src/training/tables.ts';
import type { StudySettings } from '../../src/tuning/settings.ts';
import { study } from '../../src/tuning/tables.ts';
import { webhook, webhookDelivery } from '../../src/webhooks/tables.ts';
import type { TestServer } from './server.ts';

/** The id of the one object of this type that `storeObjects` makes. */
export function idOf(type: string): string {
  return Buffer.from(`${type}:${type === 'DatasetItem' ? 'DatasetVersion:0' : type}`).toString('base64url');
}

/** One object of each kind, as after an import, written past the server. */
export function storeObjects({ dataDir }: TestServer): void {
  const client = new Sqlite(join(dataDir, 'whetstone.db'), { timeout: 5000 });
  const db = drizzle(client);
  const at = { createdAt: Date.now() };
  const ended = { startedAt: at.createdAt, endedAt: at.createdAt };
  db.insert(job)
    .values({ id: 'Job', kind: 'IMPORT_DATASET', state: 'SUCCEEDED', specJson: {}, slotsNeeded: 0, priority: 0, ...at, ...ended })
    .run();
  db.insert(dataset)
    .values({ id: 'Dataset', name: 'one', task: 'CLASSIFICATION', ...at })
    .run();
  const bySplit = { train: [1], val: [0], test: [0] };
  const counts = { items: 1, images: { train: 1, val: 0, test: 0 }, bySplit, boxesBySplit: null, duplicatesAcrossSplits: 0 };
  const ready = { number: 1, state: 'READY', jobId: 'Job', ...at } as const;
  db.insert(datasetVersion)
    .values({ id: 'DatasetVersion', datasetId: 'Dataset', splitSeed: 0, classesJson: ['a'], countsJson: counts, ...ready })
    .run();
  const image = { split: 'train', path: 'train/a/0.png', sha256: '0'.repeat(64), width: 1, height: 1, label: 0 } as const;
  db.insert(datasetItem)
    .values({ versionId: 'DatasetVersion', n: 0, ...image, thumbnailOffset: 0, thumbnailBytes: 0 })
    .run();
  db.insert(model)
    .values({ id: 'Model', name: 'one', task: 'CLASSIFICATION', ...at })
    .run();
  db.insert(modelVersion)
    .values({ id: 'ModelVersion', modelId: 'Model', format: 'ONNX', precision: 'FP32', origin: 'UPLOADED', ...ready })
    .run();
  db.insert(evaluation)
    .values({
      id: 'Evaluation',
      modelVersionId: 'ModelVersion',
      datasetVersionId: 'DatasetVersion',
      split: 'val',
      engine: 'torch',
      metricsJson: {},
      jobId: 'Job',
      ...at,
    })
    .run();
  db.insert(deployment)
    .values({ id: 'Deployment', name: 'one', ...at })
    .run();
  db.insert(report)
    .values({ id: 'Report', benchmarkJobId: 'Job', schemaVersion: 1, sha256: '0'.repeat(64), content: '{}', ...at })
    .run();
  const settings: StudySettings = {
    preset: 'resnet50',
    sampler: 'NSGA2',
    space: [{ name: 'learningRate', type: 'FLOAT', low: 0.001, high: 0.1, log: true, step: null, choices: null, when: null }],
    fixed: {},
    objectives: ['TOP1'],
    population: 2,
    seed: 0,
    halving: null,
    begin: [],
    registerMax: 1,
    init: { from: 'SCRATCH' },
    device: 'cpu',
    cpuThreads: 1,
  };
  const of = { jobId: 'Job', modelId: 'Model', datasetVersionId: 'DatasetVersion' };
  db.insert(study)
    .values({ id: 'Study', ...of, settingsJson: settings, trials: 2, importanceJson: [], ...at })
    .run();
  db.insert(webhook)
    .values({ id: 'Webhook', url: 'http://127.0.0.1/', eventsJson: ['JOB_ENDED'], secret: 'whsec_', enabled: false, ...at })
    .run();
  db.insert(webhookDelivery)
    .values({ id: 'WebhookDelivery', webhookId: 'Webhook', event: 'JOB_ENDED', body: '{}', state: 'FAILED', triedUntil: 0, ...at })
    .run();
  client.close();
}
