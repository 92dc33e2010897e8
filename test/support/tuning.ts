/** Studies on a real database and the real queue, whose proposals and trainings are invented: pure functions of their specifications. */
import { randomUUIDv7 } from 'node:crypto';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { createBus } from '../../src/bus.ts';
import { canonicalHash } from '../../src/canonical.ts';
import { readConfig } from '../../src/config.ts';
import { dataset, datasetVersion } from '../../src/datasets/tables.ts';
import { openDatabase, type Queryable } from '../../src/db.ts';
import { requireJob } from '../../src/jobs/jobs.ts';
import type { JobServices } from '../../src/jobs/kinds.ts';
import { cancelJob, type End, endAttempt } from '../../src/jobs/moves.ts';
import { claimNext, prepareSlots } from '../../src/jobs/queue.ts';
import { retryJob } from '../../src/jobs/retry.ts';
import type { AskResult, Dimension, Params } from '../../src/jobs/searchSpace.ts';
import { isFinal } from '../../src/jobs/states.ts';
import { type Job, job, slot } from '../../src/jobs/tables.ts';
import { modelVersion } from '../../src/models/tables.ts';
import { insertArtifact } from '../../src/storage/blobs.ts';
import { type Artifact, artifact, blob } from '../../src/storage/tables.ts';
import { enqueueConversion } from '../../src/training/convert.ts';
import type { TrainRequest } from '../../src/training/train.ts';
import { askRequestOf } from '../../src/tuning/ask.ts';
import { tuneJob } from '../../src/tuning/coordinate.ts';
import { pauseStudy, startTuning } from '../../src/tuning/start.ts';
import { listTrials, requireStudy, studySettings } from '../../src/tuning/studies.ts';
import { nobody } from './jobs.ts';
import { kindsOf, scripted } from './kinds.ts';
import { withFolder } from './server.ts';

const kinds = { ...kindsOf(scripted), TUNE: tuneJob };

/** A number from 0 to 1 that a value decides. */
const chanceOf = (value: unknown): number => Number.parseInt(canonicalHash(value).slice(0, 8), 16) / 2 ** 32;

export type Studied = Awaited<ReturnType<typeof openStudies>>;

async function openStudies(folder: string, slots: number) {
  const config = readConfig({ WHETSTONE_DATA_DIR: folder, WHETSTONE_SLOTS: String(slots), WHETSTONE_SKIP_DISK_CHECK: '1' });
  let opened = openDatabase(join(folder));
  const services = (): JobServices => ({
    config,
    db: opened.db,
    bus: createBus(),
    progress: new Map(),
    metrics: { moved() {} },
    tracing: null,
  });
  prepareSlots(opened.db, slots);
  insertDataset(opened.db);

  const attemptsOf = () =>
    opened.db
      .select()
      .from(job)
      .where(eq(job.state, 'RUNNING'))
      .all()
      .concat(opened.db.select().from(job).where(eq(job.state, 'CANCELLING')).all())
      .filter(({ attemptNumber }) => attemptNumber > 0);

  const end = (one: Job, how: End, made: (tx: Queryable) => Record<string, unknown> = (tx) => madeBy(tx, services(), one)) =>
    endAttempt(opened.db, kinds, one.id, one.attemptNumber, { ...how, backoffMs: () => 0 }, made);

  return {
    services,
    start: (input: object) => startTuning(services(), nobody, { ...defaults, ...input }),
    /** Starts what may start. */
    claim: () => {
      while (claimNext(opened.db, kinds));
    },
    attempts: attemptsOf,
    end,
    /** Ends a running attempt as its work decides it. */
    finish: (one: Job) =>
      end(one, one.state === 'CANCELLING' && chanceOf(one.specJson) < 0.7 ? { state: 'CANCELLED', failure: null } : endOf(one)),
    /** Ends it as if it were killed, or the server with it. */
    break: (one: Job, state: 'CRASHED' | 'LOST' | 'SUSPENDED') => end(one, { state, failure: { code: state, message: 'Invented.' } }),
    restart: () => {
      for (const one of attemptsOf()) end(one, { state: 'LOST', failure: { code: 'LOST', message: 'Invented.' } });
      opened.close();
      opened = openDatabase(join(folder));
    },
    pause: (id: string, paused: boolean) => pauseStudy(services(), nobody, id, paused),
    cancel: (id: string) => cancelJob(opened.db, kinds, nobody, requireStudy(opened.db, id).jobId),
    retry: (id: string) => retryJob(services(), kinds, nobody, requireStudy(opened.db, id).jobId),
    study: (id: string) => requireStudy(opened.db, id),
    job: (id: string) => requireJob(opened.db, requireStudy(opened.db, id).jobId),
    isOver: (id: string) => isFinal(requireJob(opened.db, requireStudy(opened.db, id).jobId).state),
    trials: (id: string) => listTrials(opened.db, id),
    /** What must be the same whatever happened: the trials without the ids of their jobs. */
    list: (id: string) => listTrials(opened.db, id).map(({ studyId: _s, jobId: _j, finalJobId: _f, ...rest }) => rest),
    trainings: () =>
      opened.db
        .select()
        .from(job)
        .where(eq(job.kind, 'TRAIN'))
        .all()
        .map((one) => ({ ...one, spec: one.specJson as TrainRequest })),
    /** Jobs whose checkpoints are kept for another training. */
    checkpoints: () =>
      opened.db
        .select()
        .from(artifact)
        .where(eq(artifact.kind, 'CHECKPOINT'))
        .all()
        .map(({ ownerId }) => ownerId),
    slotsHeld: () =>
      opened.db
        .select()
        .from(slot)
        .all()
        .filter((one) => one.jobId !== null).length,
    close: () => opened.close(),
  };
}

export const withStudies = <T>(use: (studies: Studied) => Promise<T>, slots = 2): Promise<T> =>
  withFolder(async (folder) => {
    const studies = await openStudies(folder, slots);
    try {
      return await use(studies);
    } finally {
      studies.close();
    }
  });

const datasetVersionId = 'data';

function insertDataset(db: Queryable): void {
  const createdAt = 0;
  db.insert(dataset).values({ id: 'set', name: 'digits', task: 'CLASSIFICATION', createdAt }).run();
  const bySplit = { train: [8, 8], val: [2, 2], test: [0, 0] };
  const countsJson = { items: 20, images: { train: 16, val: 4, test: 0 }, bySplit, boxesBySplit: null, duplicatesAcrossSplits: 0 };
  const content = { contentHash: '0'.repeat(64), splitSeed: 0, classesJson: ['0', '1'], countsJson };
  db.insert(datasetVersion)
    .values({ id: datasetVersionId, datasetId: 'set', number: 1, state: 'READY', ...content, createdAt })
    .run();
}

const defaults = {
  modelName: 'digits',
  datasetVersionId,
  preset: 'resnet50',
  space: [
    { name: 'learningRate', low: 0.001, high: 0.1, log: true },
    { name: 'optimizer', choices: ['ADAMW', 'SGD'] },
    { name: 'momentum', low: 0.8, high: 0.9, step: 0.1, when: { name: 'optimizer', values: ['SGD'] } },
    { name: 'imageSize', low: 32, high: 64, step: 32 },
  ],
  fixed: { epochs: 9 },
  objectives: ['TOP1', 'MACS'],
  sampler: 'NSGA2',
  population: 4,
  generations: 3,
  seed: 7,
  registerMax: 2,
  init: { from: 'SCRATCH' },
  device: 'cpu',
  dryRun: false,
};

/** SGD with a large learning rate and momentum diverges. */
function endOf({ kind, specJson }: Job): End {
  if (kind === 'TRAIN') {
    const { optimizer, learningRate, momentum } = (specJson as TrainRequest).hyperparameters;
    if (optimizer === 'SGD' && learningRate > 0.03 && momentum > 0.85)
      return { state: 'FAILED', failure: { code: 'DIVERGED', message: 'The loss is not a finite number any more.' } };
  }
  return { state: 'SUCCEEDED', failure: null };
}

function madeBy(tx: Queryable, services: JobServices, one: Job): Record<string, unknown> {
  if (one.kind === 'ASK') return { ...proposalsOf(tx, one) };
  if (one.kind === 'MEASURE') return { latencies: { 32: 1.5, 64: 6 } };
  if (one.kind === 'CONVERT') return { modelVersionId: insertVersion(tx, one) };
  const { hyperparameters, stopAfterEpoch, modelId, datasetVersionId: _, ...rest } = one.specJson as TrainRequest;
  const epochs = stopAfterEpoch ?? hyperparameters.epochs;
  const top1 = chanceOf({ hyperparameters, rest: rest.seed }) * (1 - 1 / (1 + epochs));
  const metrics = { images: 4, loss: 1, top1, top5: 1, macroTop1: top1 };
  const result = { epochs, bestEpoch: epochs, stoppedEarly: false, metrics, engine: 'torch', parameters: 1, bytes: 4 };
  const done = { ...result, macs: hyperparameters.imageSize ** 2 };
  if (modelId === null) {
    insertFile(tx, { ownerType: 'JOB', ownerId: one.id, kind: 'CHECKPOINT' });
    return done;
  }
  const versionId = insertVersion(tx, one, modelId);
  return { ...done, modelVersionId: versionId, conversionJobId: enqueueConversion(tx, services, one, versionId).id };
}

function proposalsOf(tx: Queryable, one: Job): AskResult {
  const { studyId, count } = askRequestOf(one);
  const row = requireStudy(tx, studyId);
  const { sampler, space, seed } = studySettings(row);
  const known = listTrials(tx, studyId);
  if (sampler === 'GRID') return { proposals: pointsOf(space).slice(known.length, known.length + count), importance: [] };
  // They depend on what is known, as those of a sampler do.
  const results = known.filter(({ outcome }) => outcome !== null).map(({ valuesJson }) => valuesJson);
  const proposals = Array.from({ length: count }, (_, n): Params => {
    const chance = (name: string) => chanceOf({ seed, number: known.length + n, name, results });
    return Object.fromEntries(
      space.map(({ name, choices, low, high, step, log }) => {
        if (choices) return [name, choices[Math.floor(chance(name) * choices.length)] as number | string];
        const [from, to] = [low as number, high as number];
        // Few values, so that equal trials occur.
        if (step === null) return [name, log ? ([0.001, 0.01, 0.1][Math.floor(3 * chance(name))] as number) : from];
        return [name, from + step * Math.floor(chance(name) * (Math.round((to - from) / step) + 1))];
      }),
    );
  });
  return { proposals, importance: [] };
}

/** Of a grid whose dimensions have choices. */
const pointsOf = (space: readonly Dimension[]): Params[] =>
  space.reduce<Params[]>(
    (points, { name, choices }) => points.flatMap((point) => (choices ?? []).map((value) => ({ ...point, [name]: value }))),
    [{}],
  );

function insertFile(tx: Queryable, owner: Pick<Artifact, 'ownerType' | 'ownerId' | 'kind'>): string {
  const file = { sha256: randomUUIDv7(), sizeBytes: 1 };
  tx.insert(blob)
    .values({ ...file, createdAt: 0 })
    .run();
  return insertArtifact(tx, file, { ...owner, name: 'file' }).id;
}

function insertVersion(tx: Queryable, { id: jobId, specJson }: Job, wanted?: string): string {
  const id = randomUUIDv7();
  const modelId = wanted ?? modelOf(tx, (specJson as { modelVersionId: string }).modelVersionId);
  const number = tx.select().from(modelVersion).all().length + 1;
  const artifactId = insertFile(tx, { ownerType: 'MODEL_VERSION', ownerId: id, kind: 'WEIGHTS' });
  const columns = { format: 'CHECKPOINT', precision: 'FP32', origin: 'TRAINED', artifactId, jobId, datasetVersionId } as const;
  tx.insert(modelVersion)
    .values({ id, modelId, number, state: 'READY', ...columns, createdAt: 0 })
    .run();
  return id;
}

const modelOf = (tx: Queryable, id: string): string =>
  tx.select().from(modelVersion).where(eq(modelVersion.id, id)).get()?.modelId as string;

/** Works through a study to its end; `disturb` may do something else to a running attempt, and then returns true. */
export async function workThrough(
  studies: Studied,
  id: string,
  disturb: (one: Job, running: Job[]) => boolean = () => false,
  next: (running: Job[]) => Job | undefined = (running) => running[0],
): Promise<void> {
  for (let step = 0; step < 10_000; step += 1) {
    if (studies.isOver(id)) return;
    studies.claim();
    const running = studies.attempts();
    const one = next(running);
    if (!one) throw new Error(`Nothing runs, and the study is ${studies.job(id).state}.`);
    if (!disturb(one, running)) studies.finish(one);
  }
  throw new Error('The study does not come to an end.');
}
