/**
 * What the search is worth on 320 digits: NSGA-II against random values and the defaults, and what halving saves. The whole comparison takes
 * hours: WHETSTONE_SEARCH_FULL=1 asks for it. Without, so few trials are made that they decide nothing: it only shows that it runs.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { digitFolders } from './support/images.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, ask, datasetVersionOf, mutate, succeeded } from './support/training.ts';

const brief = !process.env.WHETSTONE_SEARCH_FULL;
const hours = 3_600_000;
const seeds = brief ? [1] : [1, 2, 3];
const labels = brief ? [0, 1, 2] : [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/** Of each class. With 200 validation images one of them is half a point. */
const images = brief ? { train: 8, val: 8 } : { train: 32, val: 20 };
/** The first generation is random: the later ones show what is learned. */
const sizes = brief ? { population: 3, generations: 2 } : { population: 12, generations: 5 };
/** Of 12 trials of 6 epochs: 40 epochs, not 72. */
const halving = { firstEpoch: 2, reduction: 3 };

let server: TestServer;
let api: Api;
let datasetVersionId: string;
withSharedServer((running) => {
  server = running;
});
beforeAll(async () => {
  api = { url: server.url, token: await server.as('ENGINEER') };
  const train = await digitFolders(labels, images.train, { under: 'train/' });
  const val = await digitFolders(labels, images.val, { under: 'val/', first: images.train });
  datasetVersionId = await datasetVersionOf(api, 'digits', { ...train, ...val });
});

interface Found {
  /** In points. */
  top1: number;
  epochs: number;
}

/** What a study has found, and the epochs that it has trained. Its space is that of the preset. */
async function searched(sampler: string, seed: number, changes: object = {}): Promise<Found> {
  const fixed = { imageSize: 32, epochs: 6, flip: 0, warmupSteps: 10, emaDecay: 0.9 };
  const about = { modelName: 'digits', datasetVersionId, preset: 'resnet18', device: 'CPU', cpuThreads: 1 };
  const input = { ...about, fixed, objectives: ['TOP1'], sampler, seed, ...sizes, registerMax: 0, ...changes };
  const { study } = await mutate(api, 'startTuning', input, 'study { id job { id } }');
  await succeeded(api, study.job.id);
  const query = `query ($id: ID!) { study(id: $id) { front { values } trials(first: 100) { nodes { copyOf epochs } } } }`;
  const { data } = await ask(api, query, { id: study.id });
  const trained: { epochs: number }[] = data.study.trials.nodes.filter(({ copyOf }: { copyOf: number | null }) => copyOf === null);
  return { top1: 100 * data.study.front[0].values[0], epochs: trained.reduce((sum, { epochs }) => sum + epochs, 0) };
}

const meanOf = (all: Found[], of: (one: Found) => number): number => all.reduce((sum, one) => sum + of(one), 0) / all.length;
const top1Of = (all: Found[]): number => meanOf(all, ({ top1 }) => top1);

async function forSeeds(run: (seed: number) => Promise<Found>): Promise<Found[]> {
  const all: Found[] = [];
  for (const seed of seeds) all.push(await run(seed));
  return all;
}

const found: Record<string, Found[]> = {};
afterAll(() => console.log(JSON.stringify(found, null, 1)));

test(
  'the best of NSGA-II is at least as good as that of random values, and better than the defaults',
  async () => {
    found.nsga2 = await forSeeds((seed) => searched('NSGA2', seed));
    found.random = await forSeeds((seed) => searched('RANDOM', seed));
    found.defaults = await forSeeds((seed) => searched('RANDOM', seed, { begin: [{}], generations: null, trials: 1 }));
    if (brief) return;
    expect(top1Of(found.nsga2)).toBeGreaterThanOrEqual(top1Of(found.random));
    expect(top1Of(found.nsga2)).toBeGreaterThanOrEqual(top1Of(found.defaults));
  },
  24 * hours,
);

test(
  'halving saves 40 % of the epochs, and loses half a point at most',
  async () => {
    found.nsga2 ??= await forSeeds((seed) => searched('NSGA2', seed));
    found.halved = await forSeeds((seed) => searched('NSGA2', seed, { halving }));
    expect(meanOf(found.halved, ({ epochs }) => epochs)).toBeLessThanOrEqual(0.6 * meanOf(found.nsga2, ({ epochs }) => epochs));
    if (!brief) expect(top1Of(found.halved)).toBeGreaterThanOrEqual(top1Of(found.nsga2) - 0.5);
  },
  24 * hours,
);
