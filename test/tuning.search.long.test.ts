/**
 * What the search is worth on 100 digits: NSGA-II against random values and the defaults, and what halving saves. Studies, queue and proposals
 * are the real ones. The trainings are too, but each was run once: a training is a function of its specification, and
 * fixtures/trainings.json has their curves. WHETSTONE_SEARCH_SEEDS=4 runs those that are missing for this seed, and records them: 15 minutes
 * of a core for each seed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { canonicalHash } from '../src/canonical.ts';
import { manifestVersion } from '../src/jobs/manifest.ts';
import { beforeOf, presets } from '../src/jobs/presets.ts';
import { SPEC_VERSION, type Spec, TrainSpec } from '../src/jobs/specs.ts';
import type { Job } from '../src/jobs/tables.ts';
import { trainerFolder, trainerPython } from '../src/python.ts';
import type { TrainRequest } from '../src/training/train.ts';
import { askJob } from '../src/tuning/ask.ts';
import { frontOf, studySettings } from '../src/tuning/studies.ts';
import { digitFolders, type Files } from './support/images.ts';
import { type Studied, withStudies } from './support/tuning.ts';

const hours = 3_600_000;
const wanted = process.env.WHETSTONE_SEARCH_SEEDS;
const seeds = (wanted ?? '1,2,3').split(',').map(Number);
/** The first generation is random: the later ones show what is learned. */
const sizes = { population: 12, generations: 5 };
/** Of 12 trials of 6 epochs: 40 epochs, not 72. */
const halving = { firstEpoch: 2, reduction: 3 };

// --------------------------------------------------------------------------------------------------------- trainings

/** The top-1 after each epoch; null: it diverged there. */
type Curve = (number | null)[];

const recordFile = join(import.meta.dirname, 'fixtures', 'trainings.json');
/** `hyperparameters`: those that there were when the first curve was recorded. */
interface Recorded {
  hyperparameters: string[];
  curves: Record<string, Curve>;
}
const readRecorded = (): Recorded => JSON.parse(readFileSync(recordFile, 'utf8'));
const { hyperparameters: names, curves } = readRecorded();

let folder: string;
let child: ChildProcess;
/** Gives a specification to the trainer; its answer. */
let run: (spec: Spec) => Promise<unknown>;
let dataset: object;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whetstone-search-'));
  dataset = await writeDataset();
  child = spawn(trainerPython, ['-P', join(import.meta.dirname, 'support', 'trainings.py')], {
    cwd: trainerFolder,
    env: { ...process.env, PYTHONPATH: trainerFolder },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
  run = async (spec) => {
    child.stdin?.write(`${JSON.stringify({ v: 1, job: 'job', attempt: 1, workDir: folder, spec })}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error('The trainer has ended: see above.');
    return JSON.parse(value);
  };
});
afterAll(async () => {
  child.stdin?.end();
  await rm(folder, { recursive: true });
});

/** As the trainer reads one. */
async function writeDataset(): Promise<object> {
  const labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  // With 200 validation images one of them is half a point.
  const train = await digitFolders(labels, 10, { under: 'train/' });
  const val = await digitFolders(labels, 20, { under: 'val/', first: 10 });
  const files: Files = { ...train, ...val };
  const items = Object.keys(files).map((path, n) => {
    const [split, label] = path.split('/');
    return { v: manifestVersion, n, split, path, sha256: '0'.repeat(64), width: 28, height: 28, label: Number(label), boxes: null };
  });
  for (const [path, bytes] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), bytes);
  }
  const manifest = join(folder, 'manifest.jsonl');
  await writeFile(manifest, items.map((item) => `${JSON.stringify(item)}\n`).join(''));
  return { root: folder, manifest, classes: labels.map(String), contentHash: '0'.repeat(64) };
}

/** Of the epochs that a TRAIN job trains, and perhaps more. */
async function curveOf({ preset, hyperparameters, seed, ...request }: TrainRequest): Promise<Curve> {
  // Without hyperparameters that were added later, where they change nothing.
  const before = beforeOf(presets[preset].hyperparameters.shape);
  const counted = Object.entries(hyperparameters).filter(([name, value]) => names.includes(name) || before[name] !== value);
  const key = canonicalHash({ preset, hyperparameters: Object.fromEntries(counted), seed }).slice(0, 16);
  const known = curves[key] ?? [];
  if (known.at(-1) === null || known.length >= (request.stopAfterEpoch ?? hyperparameters.epochs)) return known;
  if (!wanted) throw new Error(`The training ${key} of ${JSON.stringify(hyperparameters)} is not recorded.`);
  const common = { kind: 'TRAIN', specVersion: SPEC_VERSION, codeVersion: 'test', resumeFrom: null };
  const curve = (await run(TrainSpec.parse({ ...request, ...common, preset, hyperparameters, seed, dataset }))) as Curve;
  // Another process may record other seeds at the same time.
  Object.assign(curves, { ...readRecorded().curves, ...curves, [key]: curve });
  const lines = Object.entries(curves).map(([name, values]) => `${JSON.stringify(name)}: ${JSON.stringify(values)}`);
  const json = `{\n"hyperparameters": ${JSON.stringify(names)},\n"curves": {\n${lines.sort().join(',\n')}\n}\n}\n`;
  writeFileSync(`${recordFile}.tmp`, json);
  renameSync(`${recordFile}.tmp`, recordFile);
  return curve;
}

// ----------------------------------------------------------------------------------------------------------- studies

async function work(studies: Studied, one: Job): Promise<void> {
  const succeed = (result: Record<string, unknown>) => studies.end(one, { state: 'SUCCEEDED', failure: null }, () => result);
  if (one.kind === 'ASK') {
    const { spec } = await askJob.launch(studies.services(), { job: one, attemptNumber: 1, workDir: '', resumeFrom: null });
    succeed((await run(spec)) as Record<string, unknown>);
    return;
  }
  const request = one.specJson as TrainRequest;
  const epochs = request.stopAfterEpoch ?? request.hyperparameters.epochs;
  const curve = (await curveOf(request)).slice(0, epochs);
  if (curve.includes(null)) {
    studies.end(one, { state: 'FAILED', failure: { code: 'DIVERGED', message: 'The loss is not a finite number any more.' } });
    return;
  }
  const top1 = Math.max(...(curve as number[]));
  const metrics = { images: 200, loss: 0, top1, top5: 1, macroTop1: top1 };
  const bestEpoch = curve.indexOf(top1) + 1;
  succeed({ epochs, bestEpoch, stoppedEarly: false, metrics, engine: 'torch', parameters: 1, macs: 1, bytes: 1 });
}

interface Found {
  /** In points. */
  top1: number;
  epochs: number;
}

/** What a study has found, and the epochs that it has trained. Its space is that of the preset. */
const searched = (sampler: string, seed: number, changes: object = {}): Promise<Found> =>
  withStudies(async (studies) => {
    const fixed = { imageSize: 32, epochs: 6, flip: 0, warmupSteps: 10, emaDecay: 0.9 };
    const about = { preset: 'resnet18', cpuThreads: 1, space: undefined, fixed, objectives: ['TOP1'], registerMax: 0 };
    const { study } = await studies.start({ ...about, sampler, seed, ...sizes, ...changes });
    const id = String(study?.id);
    while (!studies.isOver(id)) {
      studies.claim();
      for (const one of studies.attempts()) await work(studies, one);
    }
    expect(studies.job(id).state).toBe('SUCCEEDED');
    const trials = studies.trials(id);
    const [best] = frontOf(studySettings(studies.study(id)), trials);
    const trained = trials.filter(({ copyOf }) => copyOf === null);
    return { top1: 100 * Number(best?.values?.[0]), epochs: trained.reduce((sum, { epochs }) => sum + epochs, 0) };
  });

const meanOf = (all: Found[], of: (one: Found) => number): number => all.reduce((sum, one) => sum + of(one), 0) / all.length;
const top1Of = (all: Found[]): number => meanOf(all, ({ top1 }) => top1);

type Search = 'nsga2' | 'halved' | 'random' | 'randomHalved' | 'defaults';
const found: Record<Search, Found[]> = { nsga2: [], halved: [], random: [], randomHalved: [], defaults: [] };
beforeAll(async () => {
  for (const seed of seeds) {
    found.nsga2.push(await searched('NSGA2', seed));
    found.halved.push(await searched('NSGA2', seed, { halving }));
    found.random.push(await searched('RANDOM', seed));
    // The same trials: what is lost is what halving stops by mistake. Only printed.
    found.randomHalved.push(await searched('RANDOM', seed, { halving }));
    found.defaults.push(await searched('RANDOM', seed, { begin: [{}], generations: null, trials: 1 }));
    console.log(JSON.stringify(found));
  }
}, 24 * hours);

test('the best of NSGA-II is at least as good as that of random values, and better than the defaults', () => {
  expect(top1Of(found.nsga2)).toBeGreaterThanOrEqual(top1Of(found.random));
  expect(top1Of(found.nsga2)).toBeGreaterThan(top1Of(found.defaults));
});

const epochsOf = (all: Found[]): number => meanOf(all, ({ epochs }) => epochs);

test('halving saves 40 % of the epochs, and NSGA-II loses at most half a point by it', () => {
  expect(epochsOf(found.halved)).toBeLessThanOrEqual(0.6 * epochsOf(found.nsga2));
  expect(epochsOf(found.randomHalved)).toBeLessThanOrEqual(0.6 * epochsOf(found.random));
  expect(top1Of(found.halved)).toBeGreaterThanOrEqual(top1Of(found.nsga2) - 0.5);
});
