/** A data folder as the version of migration 7 left it: a suspended job of each kind, and what a crash in the export had registered twice. */
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { createImageTable } from '../../src/datasets/imageTable.ts';
import { type Db, openDatabase } from '../../src/db.ts';
import { startChild } from '../../src/jobs/executor/local.ts';
import { storedHyperparameters } from '../../src/jobs/presets.ts';
import { launchTrainer } from '../../src/jobs/python.ts';
import type { Spec } from '../../src/jobs/specs.ts';
import { blobPath } from '../../src/storage/blobs.ts';
import { digitFolders, zipOf } from './images.ts';
import { makeModelFiles } from './onnx.ts';

const root = join(import.meta.dirname, '..', '..');
const hashOf = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/** The migrations up to the one with this tag. */
export function migrationsUntil(last: string, folder: string): string {
  const to = join(folder, 'migrations');
  cpSync(join(root, 'drizzle'), to, { recursive: true });
  const journalFile = join(to, 'meta', '_journal.json');
  const journal = JSON.parse(readFileSync(journalFile, 'utf8'));
  const end = 1 + journal.entries.findIndex(({ tag }: { tag: string }) => tag === last);
  writeFileSync(journalFile, JSON.stringify({ ...journal, entries: journal.entries.slice(0, end) }));
  return to;
}

const classes = ['0', '1', '2'];
const preprocess = {
  ...{ version: 1, width: 32, height: 32, mode: 'CROP', cropFraction: 1, padColor: [114, 114, 114], channels: 'RGB', layout: 'NCHW' },
  ...{ mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
};
const hyperparameters = {
  ...{ imageSize: 32, epochs: 2, batchSize: 8, optimizer: 'ADAMW', learningRate: 0.001, momentum: 0.9, weightDecay: 0.05, warmupSteps: 4 },
  ...{ labelSmoothing: 0.1, emaDecay: 0.999, gradientClip: 1, earlyStopping: 0, mixedPrecision: 'AUTO', flip: 0, cropScale: 0.5 },
  ...{ colorJitter: 0.2, erasing: 0 },
};
const computing = { cpuThreads: 1, device: 'cpu', seed: 0 };

/** Ids of the jobs by kind. */
export const suspendedJobs = {
  IMPORT_DATASET: 'import-dataset',
  IMPORT_MODEL: 'import-model',
  TRAIN: 'train',
  CONVERT: 'convert',
  EVALUATE: 'evaluate',
  BENCHMARK: 'benchmark',
};

/** Fills `dataDir`; `folder` is for what is needed on the way. */
export async function fillAsMigration7(dataDir: string, folder: string): Promise<void> {
  const { db, close } = openDatabase(dataDir, migrationsUntil('0007_api-keys', folder));
  try {
    await fill(db, dataDir, folder);
  } finally {
    close();
  }
}

async function fill(db: Db, dataDir: string, folder: string): Promise<void> {
  const insert = (table: string, row: Record<string, unknown>) => {
    const values = Object.values(row).map((value) => (value !== null && typeof value === 'object' ? JSON.stringify(value) : value));
    const names = Object.keys(row).map((name) => `"${name}"`);
    db.$client.prepare(`INSERT INTO ${table} (${names}) VALUES (${names.map(() => '?')})`).run(values);
  };
  /** A file in the store, and the artifact by which its owner has it. */
  const keep = (id: string, ownerType: string, ownerId: string, kind: string, name: string, bytes: Buffer): string => {
    const sha256 = hashOf(bytes);
    const path = blobPath(dataDir, sha256);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
    db.$client.prepare('INSERT OR IGNORE INTO blob VALUES (?, ?, ?)').run(sha256, bytes.length, Date.now());
    insert('artifact', { id, ownerType, ownerId, kind, name, sha256, createdAt: 0 });
    return sha256;
  };
  const job = (kind: keyof typeof suspendedJobs, slotsNeeded: number, specJson: object) => {
    const id = suspendedJobs[kind];
    insert('job', {
      id,
      kind,
      state: 'QUEUED',
      specJson,
      slotsNeeded,
      priority: 0,
      createdAt: 0,
      attemptNumber: 1,
      startedAt: 0,
      nextSeq: 2,
    });
    insert('attempt', { jobId: id, number: 1, state: 'SUSPENDED', startedAt: 0, endedAt: 1, exitCode: 75, charged: 0 });
    insert('job_event', { jobId: id, seq: 1, attemptNumber: 0, at: 0, type: 'STATE', payloadJson: { state: 'QUEUED' } });
  };
  const ended = (id: string, kind: string, specJson: object) =>
    insert('job', { id, kind, state: 'SUCCEEDED', specJson, slotsNeeded: 0, priority: 0, createdAt: 0, endedAt: 1 });

  // A dataset from before there were boxes: neither its job nor its manifest knows of tasks.
  const images = await digitFolders([0, 1, 2], 16);
  const zip = zipOf(images);
  insert('dataset', { id: 'dataset', name: 'digits', task: 'CLASSIFICATION', createdAt: 0 });
  const zipHash = keep('zip', 'DATASET_VERSION', 'data', 'DATASET_ZIP', 'digits.zip', zip);
  const importing = { fileName: 'digits.zip', splitSeed: 0, splitShares: { val: 0.25, test: 0 }, cpuThreads: 1 };
  ended('imported', 'IMPORT_DATASET', { ...importing, datasetVersionId: 'data', sha256: zipHash });
  const splitOf = (path: string) => (Number(/(\d+)\.png/.exec(path)?.[1]) % 4 === 0 ? 'val' : 'train');
  const items = Object.entries(images).map(([path, bytes]) => ({
    ...{ split: splitOf(path), path, sha256: hashOf(bytes), width: 28, height: 28, label: classes.indexOf(path.slice(0, 1)) },
  }));
  const lines = items.sort((a, b) => (a.split < b.split ? -1 : 1)).map((item, n) => `${JSON.stringify({ n, ...item })}\n`);
  const manifest = Buffer.from(lines.join(''));
  keep('manifest', 'DATASET_VERSION', 'data', 'MANIFEST', 'manifest.jsonl', manifest);
  const contentHash = hashOf('content');
  const bySplit = { train: [12, 12, 12], val: [4, 4, 4], test: [0, 0, 0] };
  const countsJson = { items: 48, images: { train: 36, val: 12, test: 0 }, bySplit, boxesBySplit: null, duplicatesAcrossSplits: 0 };
  const version = { number: 1, splitSeed: 0, createdAt: 0 };
  insert('dataset_version', {
    ...{ id: 'data', datasetId: 'dataset', ...version, state: 'READY', contentHash, classesJson: classes, countsJson, jobId: 'imported' },
  });

  // Models: weights of a training that the crashes of its export had registered three times, and an ONNX file.
  await makeModelFiles(folder, ['resnet50.safetensors', 'classifier.onnx']);
  const [weights, onnx] = ['resnet50.safetensors', 'classifier.onnx'].map((name) => readFileSync(join(folder, name)));
  insert('model', { id: 'model', name: 'digits', task: 'CLASSIFICATION', createdAt: 0 });
  ended('trained', 'TRAIN', {});
  insert('metric_point', { jobId: 'trained', name: 'val.loss', step: 6, value: 1, attemptNumber: 1 });
  insert('job_event', { jobId: 'trained', seq: 1, attemptNumber: 1, at: 0, type: 'EPOCH', payloadJson: { epoch: 2, step: 6 } });
  const ready = { modelId: 'model', state: 'READY', precision: 'FP32', labelsJson: classes, createdAt: 0, jobId: 'trained' };
  keep('weights', 'MODEL_VERSION', 'checkpoint', 'WEIGHTS', 'resnet50.safetensors', weights as Buffer);
  keep('onnx', 'MODEL_VERSION', 'onnx', 'ONNX', 'model.onnx', onnx as Buffer);
  const port = (name: string, shape: (string | number)[]) => [{ name, elementType: 'FLOAT', shape: ['batch', ...shape] }];
  const signatureJson = {
    ...{ inputs: port('image', [3, 8, 8]), outputs: port('y', [3]), operators: {}, opsets: {}, irVersion: 9, producer: '', parameters: 0 },
    ...{ elementTypes: {}, labels: null, preprocess: null, metadata: {}, metadataTruncated: false, weightsHash: null, exporter: null },
  };
  const trained = { format: 'CHECKPOINT', origin: 'TRAINED', preset: 'resnet50', artifactId: 'weights', preprocessJson: preprocess };
  insert('model_version', { id: 'checkpoint', number: 1, ...ready, ...trained, datasetVersionId: 'data' });
  const uploaded = { format: 'ONNX', origin: 'UPLOADED', artifactId: 'onnx', preprocessJson: { ...preprocess, width: 8, height: 8 } };
  insert('model_version', { id: 'onnx', number: 2, ...ready, ...uploaded, signatureJson });
  for (const n of [1, 2, 3]) {
    keep(`checkpoint ${n}`, 'MODEL_VERSION', 'checkpoint', 'CHECKPOINT', 'checkpoint.safetensors', Buffer.from('checkpoint'));
    keep(`evaluation ${n}`, 'MODEL_VERSION', 'checkpoint', 'EVALUATION', 'evaluation-val.json', Buffer.from('{}'));
    const measured = { modelVersionId: 'checkpoint', datasetVersionId: 'data', split: 'val', engine: 'torch', metricsJson: { images: 12 } };
    insert('evaluation', { id: `evaluated ${n}`, ...measured, artifactId: `evaluation ${n}`, jobId: 'trained', createdAt: n });
  }

  // The suspended jobs, as that version wrote their specifications.
  const second = zipOf(await digitFolders([5, 6], 10));
  const secondHash = keep('second zip', 'DATASET_VERSION', 'second data', 'DATASET_ZIP', 'more.zip', second);
  job('IMPORT_DATASET', 0, {
    ...importing,
    task: 'CLASSIFICATION',
    datasetVersionId: 'second data',
    sha256: secondHash,
    fileName: 'more.zip',
  });
  insert('dataset_version', {
    id: 'second data',
    datasetId: 'dataset',
    ...version,
    number: 2,
    state: 'IMPORTING',
    jobId: 'import-dataset',
  });
  const importedHash = keep('imported onnx', 'MODEL_VERSION', 'imported', 'ONNX', 'classifier.onnx', onnx as Buffer);
  const file = { fileName: 'classifier.onnx', sha256: importedHash, preset: null, labels: null, preprocess: null };
  job('IMPORT_MODEL', 0, { modelVersionId: 'imported', ...file, cpuThreads: 1 });
  const expected = { ...ready, state: 'IMPORTING', number: 3, format: 'ONNX', origin: 'UPLOADED', jobId: 'import-model' };
  insert('model_version', { id: 'imported', ...expected });
  job('CONVERT', 1, { modelVersionId: 'checkpoint', datasetVersionId: 'data', ...computing });
  job('EVALUATE', 1, { modelVersionId: 'onnx', datasetVersionId: 'data', split: 'val', batchSize: 32, ...computing });
  const short = { warmupRunsMin: 2, warmupSecondsMin: 0, warmupSecondsMax: 0.1, secondsMin: 0.3, secondsMax: 0.3, samplesWanted: 1 };
  job('BENCHMARK', -1, {
    ...{
      modelVersionIds: ['onnx'],
      batchSizes: [1],
      engines: ['ONNXRUNTIME_CPU'],
      intraOpThreads: [1],
      load: 'SINGLE_STREAM',
      dims: {},
      seed: 0,
    },
    ...{
      profile: 'QUICK',
      target: 'LATENCY',
      accuracyDropMax: 0.01,
      settings: { gateInputs: 4, samplesMax: 1000, blockSeconds: 0.1, ...short },
    },
  });
  const training = { preset: 'resnet50', hyperparameters, init: { from: 'SCRATCH' }, ...computing };
  job('TRAIN', 1, { modelId: 'model', datasetVersionId: 'data', ...training });

  // The checkpoint in the middle of the training.
  const table = createImageTable(items.length);
  const contents = items.map(({ path }) => images[path] as Buffer);
  let offset = 0;
  for (const [n, { length }] of contents.entries()) {
    table.set(n, { offset, storedBytes: length, sizeBytes: length, crc32: crc32(contents[n] as Buffer), where: 'HERE' });
    offset += length;
  }
  const found = join(folder, 'images.bin');
  writeFileSync(found, Buffer.concat([...contents, table.end(items.length)]));
  const dataset = { zip: found, images: found, manifest: blobPath(dataDir, hashOf(manifest)), classes, contentHash };
  // The checkpoint is made by today's trainer.
  const runtime = {
    checkpointSeconds: 0,
    cacheBytesMax: 2 ** 31,
    cacheDiskBytesMax: 0,
    resumeFrom: null,
    stopAfterEpoch: null,
    workers: null,
    processes: 1,
    hyperparameters: storedHyperparameters('resnet50', hyperparameters),
  };
  const spec = { kind: 'TRAIN', specVersion: 1, codeVersion: '0.1.0', ...training, dataset, preprocess, ...runtime };
  const checkpoint = await firstCheckpoint(spec as Spec, join(folder, 'work'));
  const payloadJson = { ...checkpoint, epoch: 0 };
  insert('job_event', { jobId: 'train', seq: 2, attemptNumber: 1, at: 1, type: 'CHECKPOINT', payloadJson });
  db.$client.exec("UPDATE job SET nextSeq = 3 WHERE id = 'train'");
  mkdirSync(join(dataDir, 'work', 'train'), { recursive: true });
  renameSync(join(folder, 'work'), join(dataDir, 'work', 'train', '1'));
}

/** Trains until there is a checkpoint, and suspends it there. */
async function firstCheckpoint(spec: Spec, workDir: string): Promise<{ file: string; sha256: string; batch: number }> {
  mkdirSync(workDir);
  let found: { file: string; sha256: string; batch: number } | undefined;
  const { command, args, env } = launchTrainer({ cores: 1, slots: 1 }, spec as Parameters<typeof launchTrainer>[1]);
  const specLine = { v: 1, job: 'train', attempt: 1, workDir, spec } as const;
  const child = startChild(
    { command, args, cwd: workDir, env: { PATH: process.env.PATH ?? '', ...env }, specLine },
    {
      async events(lines) {
        for (const line of lines.filter(Boolean)) {
          const event = JSON.parse(line);
          if (event.type === 'checkpoint') found = event;
        }
        if (found) child.command('suspend');
      },
      log() {},
    },
  );
  await child.ended;
  if (!found) throw new Error('The training has ended without a checkpoint.');
  return found;
}
