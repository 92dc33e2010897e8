/**
 * 41 kills of the server and 31 of its children, each at a named moment of real work, on one data folder. What is killed ends once and as
 * if nothing had happened; `isAtRest` looks at what is left behind it. Events tell the moments, never a time, but for the random ones.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseFile } from '../src/db.ts';
import { forgetImages } from './support/datasets.ts';
import { deployed, deploymentOf, settled } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { digitFolders, zipOf } from './support/images.ts';
import { makeInferenceModels } from './support/inference.ts';
import { type Killed, type Moment, startKilled, type Victim } from './support/killed.ts';
import { ask, digitsVersion, modelVersionOf, mutate, succeeded, uploaded } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
const versions: Record<string, string> = {};
let killed: Killed;
let dataset: string;
/** A trained checkpoint, of which every conversion makes an ONNX version. */
let checkpoint: string;
let onnx = '';

beforeAll(async () => {
  await makeInferenceModels(models, ['plus-1', 'plus-2', 'chain-300']);
  killed = await startKilled();
  for (const name of ['plus-1', 'plus-2', 'chain-300'])
    versions[name] = await modelVersionOf(killed.api(), name, join(models, `${name}.onnx`));
  await deployed(killed.api(), 'steady', versions['plus-1'] as string);
  dataset = await digitsVersion(killed.api(), [0, 1], 20);
  const { result } = await succeeded(killed.api(), await train());
  checkpoint = result.modelVersionId;
}, 600_000);
afterAll(async () => {
  await killed.stop();
  rmSync(models, { recursive: true });
}, 60_000);
beforeEach(() => killed.login());

const seed = 'whetstone';
let randoms = 0;
/** The seed's next number below `max`. */
function draw(max: number): number {
  randoms += 1;
  return createHash('sha256').update(`${seed} ${randoms}`).digest().readUInt32LE() % max;
}
/** Up to so many milliseconds after the begin, or after the kill before. */
function random(msMax: number): Moment {
  const ms = draw(msMax);
  let from: number | undefined;
  return {
    when: `after ${ms} ms`,
    mayBeLate: true,
    isNow() {
      from ??= performance.now();
      return performance.now() - from >= ms;
    },
  };
}
const phase = (name: string, nth = 1): Moment => ({
  when: `in phase ${nth === 1 ? '' : `${nth} of `}${name}`,
  isNow: (told) => told.filter((one) => one.phase === name).length >= nth,
});
const event = (type: string): Moment => ({ when: `after ${type}`, isNow: (told) => told.some((one) => one.type === type) });
const epoch = event('JobEpochEvent');
const checkpointTold = event('JobCheckpointEvent');
const artifact = event('JobArtifactEvent');
const gate = event('JobGateEvent');
const there = (helper: Exclude<Victim, 'server' | 'child'>): Moment => ({
  when: `while a ${helper} runs`,
  isNow: () => killed.pidOf(helper),
});

let names = 0;
const newName = (): string => {
  names += 1;
  return `n${names}`;
};

async function importDataset(): Promise<string> {
  const files = await digitFolders([0, 1, 2], 60, { first: 20 * names });
  const input = { name: newName(), task: 'CLASSIFICATION', ...(await uploaded(killed.api(), 'digits.zip', zipOf(files))) };
  return (await mutate(killed.api(), 'createDataset', input, 'datasetVersion { job { id } }')).datasetVersion.job.id;
}

async function importModel(): Promise<string> {
  const upload = await uploaded(killed.api(), 'chain.onnx', readFileSync(join(models, 'chain-300.onnx')));
  const input = { name: newName(), task: 'CLASSIFICATION', ...upload };
  return (await mutate(killed.api(), 'createModel', input, 'modelVersion { job { id } }')).modelVersion.job.id;
}

async function train(): Promise<string> {
  const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0 };
  const input = { modelName: 'digits', datasetVersionId: dataset, preset: 'resnet18', hyperparameters, convert: false };
  return (await mutate(killed.api(), 'startTraining', input, 'job { id }')).job.id;
}

async function convertWithoutImages(): Promise<string> {
  const client = new Sqlite(join(killed.dataDir, databaseFile));
  forgetImages(client);
  client.close();
  return convert();
}

const convert = async (): Promise<string> =>
  (await mutate(killed.api(), 'startConversion', { modelVersionId: checkpoint }, 'job { id }')).job.id;

/** FP16: INT8 needs more images than this dataset has. */
async function compress(): Promise<string> {
  onnx ||= (await succeeded(killed.api(), await convert())).result.modelVersionId;
  return (await mutate(killed.api(), 'startCompression', { modelVersionId: onnx, precision: 'FP16', budget: 20 }, 'job { id }')).job.id;
}

async function benchmark(): Promise<string> {
  const briefly = { engines: ['ONNXRUNTIME_CPU'], intraOpThreads: [1], secondsMin: 0.5, secondsMax: 0.5, warmupSecondsMax: 0.2 };
  const input = { modelVersionIds: [versions['plus-1'], versions['plus-2']], batchSizes: [1, 4], ...briefly };
  return (await mutate(killed.api(), 'startBenchmark', input, 'job { id }')).job.id;
}

type Kills = [Victim, Moment][];
interface Row {
  what: string;
  begin: () => Promise<string>;
  kills: Kills;
}
const row = (what: string, begin: Row['begin'], ...kills: Kills): Row => ({ what, begin, kills });

const rows: Row[] = [
  row('an import of a dataset', importDataset, ['server', phase('extraction', 2)]),
  row('an import of a dataset', importDataset, ['server', phase('decoding')]),
  row('an import of a dataset', importDataset, ['server', artifact]),
  row('an import of a dataset', importDataset, ['server', random(1500)]),
  row('an import of a dataset', importDataset, ['server', phase('decoding')], ['server', phase('extraction')]),
  row('an import of a dataset', importDataset, ['child', phase('extraction', 2)], ['child', phase('decoding')]),
  row('an import of a dataset', importDataset, ['child', phase('decoding')]),
  row('an import of a dataset', importDataset, ['child', phase('extraction')]),

  row('an import of a model', importModel, ['server', phase('inspection')]),
  row('an import of a model', importModel, ['server', artifact]),
  row('an import of a model', importModel, ['server', there('check')]),
  row('an import of a model', importModel, ['server', there('check')], ['server', random(2000)]),
  row('an import of a model', importModel, ['server', random(4000)]),
  row('an import of a model', importModel, ['child', phase('inspection')], ['child', phase('inspection')]),
  row('an import of a model', importModel, ['child', phase('inspection')]),
  row('an import of a model', importModel, ['check', there('check')]),
  row('an import of a model', importModel, ['child', phase('inspection')], ['check', there('check')]),

  row('a training', train, ['server', phase('training')], ['server', epoch], ['server', phase('validation')], ['server', artifact]),
  row('a training', train, ['server', checkpointTold], ['server', random(9000)], ['server', random(9000)]),
  row('a training', train, ['child', phase('training')], ['child', checkpointTold]),
  row('a training', train, ['child', phase('validation')], ['child', artifact]),

  row('a conversion', convert, ['server', phase('export')], ['server', phase('gate')]),
  row('a conversion', convert, ['server', phase('export')]),
  row('a conversion', convert, ['server', gate]),
  row('a conversion', convert, ['server', gate], ['server', there('check')]),
  row('a conversion', convert, ['server', random(9000)]),
  row('a conversion whose dataset is of an earlier version', convertWithoutImages, ['index', there('index')]),
  row('a conversion', convert, ['child', phase('export')], ['child', phase('gate')]),
  row('a conversion', convert, ['child', gate]),
  row('a conversion', convert, ['child', phase('export')], ['check', there('check')]),
  row('a conversion', convert, ['check', there('check')]),

  row('a compression', compress, ['server', phase('evaluation', 2)]),
  row('a compression', compress, ['child', phase('gate')]),

  row('a benchmark', benchmark, ['server', phase('start')], ['server', phase('measurement')], ['server', checkpointTold]),
  row('a benchmark', benchmark, ['server', checkpointTold], ['server', phase('measurement', 2)]),
  row('a benchmark', benchmark, ['server', phase('gate')]),
  row('a benchmark', benchmark, ['child', phase('measurement')], ['child', checkpointTold]),
  row('a benchmark', benchmark, ['child', phase('measurement', 2)]),
  row('a benchmark, without the row,', benchmark, ['cell', there('cell')]),
  row('a benchmark, without the row,', benchmark, ['cell', phase('measurement', 2)]),
];

const titleOf = ({ what, kills }: Row) =>
  `${what} outlives a kill of ${kills.map(([victim, { when }]) => `the ${victim} ${when}`).join(', ')}`;
test.each(rows.map((one) => [titleOf(one), one] as const))('%s', async (_title, { begin, kills }) => {
  const id = await killed.outlives(begin, kills);
  await killed.isAtRest();
  const { data } = await ask(killed.api(), 'query ($id: ID!) { job(id: $id) { report { verified } } }', { id });
  expect(data.job.report?.verified ?? true).toBe(true);
});

/** Something that is done to a deployment, of which the answer may be lost. */
const sent = (name: string, input: object): Promise<unknown> => mutate(killed.api(), name, input, 'deployment { name }').catch(() => {});
const loading = (name: string) =>
  eventually(async () => expect((await deploymentOf(killed.api(), name))?.loading).toEqual({ number: expect.any(Number) }));
const revisionsOf = async (name: string): Promise<string[] | undefined> =>
  (await deploymentOf(killed.api(), name))?.revisions.map(({ number, state }: Record<string, unknown>) => `${number} ${state}`);

/** When the server or the host is killed: while the deployment loads, as soon as the request was answered, or before that. */
type When = 'while it loads' | 'after the answer' | `${number} ms after the request`;
const killsOfDeployments = {
  deploy: [
    ['server', 'while it loads'],
    ['server', 'after the answer'],
    ['server', `${draw(300)} ms after the request`],
    ['host', 'while it loads'],
  ],
  rollback: [
    ['server', 'while it loads'],
    ['server', 'after the answer'],
    ['server', `${draw(300)} ms after the request`],
    ['host', 'while it loads'],
  ],
  undeploy: [
    ['server', 'after the answer'],
    ['server', `${draw(300)} ms after the request`],
    ['host', 'after the answer'],
  ],
} satisfies Record<string, ['server' | 'host', When][]>;

async function killAt(name: string, [victim, when]: readonly ['server' | 'host', When], asked: Promise<unknown>): Promise<void> {
  if (when === 'while it loads') await loading(name);
  else if (when === 'after the answer') await asked;
  else await setTimeout(Number.parseInt(when, 10));
  await (victim === 'server' ? killed.killServer() : killed.killHost());
  await asked;
}
const settings = { deadlineMs: 30_000 };

describe('a deployment', () => {
  let name: string;
  /** Serves plus-2, and before that chain-300 which takes its time to load. */
  beforeEach(async () => {
    name = newName();
    await deployed(killed.api(), name, versions['chain-300'] as string, settings);
    await deployed(killed.api(), name, versions['plus-2'] as string, settings);
  }, 60_000);
  afterEach(async () => {
    if (await deploymentOf(killed.api(), name)) await mutate(killed.api(), 'undeploy', { name }, 'deployment { name }');
    await killed.isAtRest();
  });

  test.each((['deploy', 'rollback'] as const).flatMap((what) => killsOfDeployments[what].map((kill) => [what, ...kill] as const)))(
    '%s: the %s is killed %s',
    async (what, ...kill) => {
      const input = what === 'deploy' ? { name, modelVersionId: versions['chain-300'], settings } : { name };
      await killAt(name, kill, sent(what, input));
      await killed.serves();
      await settled(killed.api(), name);
      // A request that did not arrive is sent again.
      if ((await revisionsOf(name))?.length === 2) await sent(what, input);
      await settled(killed.api(), name);
      const revisions = await revisionsOf(name);
      // A host that dies while a thread loads the new revision has that revision to blame; before and behind that it has none.
      const failed = kill[0] === 'host' && revisions?.[0] === '3 FAILED';
      expect(revisions).toEqual(failed ? ['3 FAILED', '2 ACTIVE', '1 RETIRED'] : ['3 ACTIVE', '2 RETIRED', '1 RETIRED']);
      if (failed) await killed.serves(name, 2);
    },
  );

  test.each(killsOfDeployments.undeploy)('undeploy: the %s is killed %s', async (...kill) => {
    await killAt(name, kill, sent('undeploy', { name }));
    await killed.serves();
    if (await deploymentOf(killed.api(), name)) await killed.serves(name, 2);
    await sent('undeploy', { name });
    expect(await killed.status(name)).toBe(404);
    await deployed(killed.api(), name, versions['plus-1'] as string, settings);
    await killed.serves(name, 1);
  });
});

test('the host is killed while it serves', async () => {
  await killed.killHost();
  await killed.isAtRest();
});

test('these are 41 kills of the server and 31 of its children', () => {
  const victims = [...rows.flatMap(({ kills }) => kills), ...Object.values(killsOfDeployments).flat(), ['host']].map(([victim]) => victim);
  expect(victims.filter((victim) => victim === 'server')).toHaveLength(41);
  expect(victims.filter((victim) => victim !== 'server')).toHaveLength(31);
});
