import { beforeAll, describe, expect, test } from 'vitest';
import { nextAnswer, withEvents } from './support/events.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, ask, digitsVersion, jobWhen, mutate } from './support/training.ts';

let server: TestServer;
let api: Api;
let dataset: string;
withSharedServer((running) => {
  server = running;
});
beforeAll(async () => {
  api = { url: server.url, token: await server.as('ENGINEER') };
  dataset = await digitsVersion(api, [0, 1], 8);
}, 120_000);

const space = [
  { name: 'learningRate', low: 0.0003, high: 0.03, log: true },
  { name: 'optimizer', choices: ['ADAMW', 'SGD'] },
  { name: 'momentum', low: 0.8, high: 0.99, when: { name: 'optimizer', values: ['SGD'] } },
  { name: 'imageSize', low: 32, high: 64, step: 32 },
];
const fixed = { epochs: 2, batchSize: 8, warmupSteps: 1 };
const inputOf = (changes: object = {}) => ({
  ...{ modelName: 'tuned', datasetVersionId: dataset, preset: 'resnet18', space, fixed, cpuThreads: 1, device: 'CPU' },
  ...{ population: 2, generations: 2, seed: 7, objectives: ['TOP1', 'MACS'] },
  ...changes,
});

const refusalOf = async (changes: object) => {
  const query = 'mutation ($input: StartTuningInput!) { startTuning(input: $input) { study { id } userErrors { code field message } } }';
  const { data, errors } = await ask(api, query, { input: inputOf(changes) });
  expect(errors).toBeUndefined();
  expect(data.startTuning.study).toBeNull();
  return data.startTuning.userErrors;
};

const trialFields =
  'number generation state params values epochs copyOf hyperparameters job { id kind model { id } } jobs { metrics { name steps } } modelVersion { number evaluations { job { kind } } }';
const studyFields = `id paused sampler objectives population seed trialsWanted trialsEnded preset fixed halving { firstEpoch reduction }
  space { name type low high log step choices when { name values } } model { name } datasetVersion { id } importance { name share }
  job { id state kind result children { kind state } } front { number values }`;

describe('a study of real trainings', () => {
  let study: { id: string; job: { id: string } };

  test('trains its generations with halving, and registers and converts the best behind the gate', async () => {
    const started = await mutate(
      api,
      'startTuning',
      inputOf({ halving: { firstEpoch: 1, reduction: 2 }, begin: [{ imageSize: 32 }], idempotencyKey: 'one' }),
      `study { ${studyFields} } plan { trials generations epochs }`,
    );
    study = started.study;
    expect(started.plan).toEqual({ trials: 4, generations: 2, epochs: 6 });
    expect(started.study).toMatchObject({ trialsEnded: 0, trialsWanted: 4, paused: false, job: { kind: 'TUNE', state: 'RUNNING' } });
    const told = events(study.job.id);
    await jobWhen(api, study.job.id, ({ state }) => state === 'SUCCEEDED');

    const { data, errors } = await ask(
      api,
      `query ($id: ID!) { study(id: $id) { ${studyFields} trials(first: 3) { nodes { ${trialFields} } pageInfo { hasNextPage endCursor } } } }`,
      { id: study.id },
    );
    expect(errors).toBeUndefined();
    const { trials, front, job } = data.study;
    expect(trials.pageInfo.hasNextPage).toBe(true);
    const rest = await ask(
      api,
      `query ($id: ID!, $after: String) { study(id: $id) { trials(first: 3, after: $after) { nodes { ${trialFields} } } } }`,
      { id: study.id, after: trials.pageInfo.endCursor },
    );
    const all = [...trials.nodes, ...rest.data.study.trials.nodes];
    expect(all.map(({ number, generation }) => [number, generation])).toEqual([
      [0, 0],
      [1, 0],
      [2, 1],
      [3, 1],
    ]);
    expect(all[0]).toMatchObject({ params: { learningRate: 0.001, optimizer: 'ADAMW', imageSize: 32 }, hyperparameters: { epochs: 2 } });
    for (const { state, values, epochs, copyOf, job: training, jobs } of all) {
      expect([state, epochs]).toEqual(state === 'STOPPED' ? ['STOPPED', 1] : ['COMPLETE', 2]);
      expect(values[0]).toBeGreaterThanOrEqual(0);
      expect(values[1]).toBeGreaterThan(1e6);
      if (copyOf !== null) continue;
      expect(training).toMatchObject({ kind: 'TRAIN', model: null });
      type Curve = { name: string; steps: number[] };
      const steps = jobs.flatMap(({ metrics }: { metrics: Curve[] }) => metrics.find(({ name }) => name === 'val.top1')?.steps ?? []);
      expect(steps).toEqual(epochs === 1 ? [1] : [1, 2]);
    }
    // One of each generation continues; a copy has no training of its own.
    expect(new Set(all.map(({ state }) => state))).toEqual(new Set(['COMPLETE', 'STOPPED']));
    const best = all[front[0].number];
    expect(best.modelVersion).toMatchObject({ number: 1, evaluations: [{ job: { kind: 'TRAIN' } }] });
    expect(job.result).toMatchObject({ trials: 4, front: front.map(({ number }: { number: number }) => number) });
    expect(job.result.modelVersionIds.length).toBe(2);
    const versions = await ask(api, '{ model(name: "tuned") { versions { nodes { number format state } } } }');
    expect(versions.data.model.versions.nodes.map(({ format }: { format: string }) => format).sort()).toEqual(['CHECKPOINT', 'ONNX']);

    const seen = await told;
    expect(seen.map(({ seq }) => seq)).toEqual(seen.map((_, n) => n + 1));
    const ended = seen.filter(({ __typename }) => __typename === 'JobTrialEvent').map(({ number }) => number);
    expect([...ended].sort()).toEqual([0, 1, 2, 3]);
  }, 900_000);

  test('is the same one for the same key, and is listed, sorted by an objective, and found from its jobs', async () => {
    const again = await mutate(
      api,
      'startTuning',
      inputOf({ halving: { firstEpoch: 1, reduction: 2 }, begin: [{ imageSize: 32 }], idempotencyKey: 'one' }),
      'study { id }',
    );
    expect(again.study.id).toBe(study.id);
    const query = `query ($id: ID!, $job: ID!) { studies { nodes { id } } job(id: $job) { study { id } children { kind study { id } } }
      study(id: $id) { trials(orderBy: MACS) { nodes { number values } } } }`;
    const { data, errors } = await ask(api, query, { id: study.id, job: study.job.id });
    expect(errors).toBeUndefined();
    expect(data.studies.nodes).toEqual([{ id: study.id }]);
    const sizes = data.study.trials.nodes.map(({ values }: { values: number[] }) => values[1]);
    expect(sizes).toEqual([...sizes].sort((a, b) => a - b));
    const { children } = data.job;
    expect(new Set(children.map(({ kind }: { kind: string }) => kind))).toEqual(new Set(['ASK', 'TRAIN', 'CONVERT']));
    expect(children.every((child: { kind: string; study: object | null }) => (child.kind === 'CONVERT') === (child.study === null))).toBe(
      true,
    );
    const wrong = await ask(api, 'query ($id: ID!) { study(id: $id) { trials(orderBy: MAP50) { nodes { number } } } }', { id: study.id });
    expect(wrong.errors?.[0]?.message).toBe('The study does not optimise MAP50: its objectives are TOP1, MACS.');
  });

  test('is reported in every form, also from an engineer’s link, with the version that its best trial has become', async () => {
    const query =
      'query ($ids: [ID!]!, $format: ReportFormat!) { exportJobs(jobIds: $ids, format: $format) { fileName content sha256 url } }';
    const exported = async (format: string) => (await ask(api, query, { ids: [study.job.id], format })).data.exportJobs;
    const json = await exported('JSON');
    expect(json.fileName).toBe(`study-${json.sha256.slice(0, 12)}.json`);
    const facts = JSON.parse(json.content);
    expect(facts).toMatchObject({ kind: 'TUNE', state: 'SUCCEEDED', model: 'tuned', objectives: ['TOP1', 'MACS'], trialsWanted: 4 });
    expect(facts.registered).toMatchObject([{ trial: facts.front[0], version: { number: 1 }, conversion: { state: 'SUCCEEDED' } }]);
    expect((await exported('CSV')).content.trimEnd().split('\r\n')).toHaveLength(5);
    expect((await exported('MARKDOWN')).content).toContain(`Trial ${facts.front[0]} is tuned version 1, and as ONNX tuned version 2.`);
    const { content, url, sha256 } = await exported('HTML');
    expect(sha256).toBe(json.sha256);
    expect(content).toContain('Parallel coordinates');
    expect(await (await fetch(server.url + url)).text()).toBe(content);
  });

  test('leaves no checkpoints of its trials', async () => {
    const { db } = server.services;
    expect(db.$client.prepare("SELECT count(*) FROM artifact WHERE ownerType = 'JOB' AND kind = 'CHECKPOINT'").pluck().get()).toBe(0);
  });

  test('of which a dry run tells the work, and how long from the speed of earlier trainings', async () => {
    const { plan, study: none } = await mutate(
      api,
      'startTuning',
      inputOf({ space: null, objectives: null, dryRun: true, population: 8, generations: 2 }),
      'study { id } plan { trials generations epochs estimatedMs basedOn }',
    );
    expect(none).toBeNull();
    expect(plan).toMatchObject({ trials: 16, generations: 2, epochs: 32 });
    expect(plan.basedOn).toBeGreaterThan(0);
    expect(plan.estimatedMs).toBeGreaterThan(0);
    const { data } = await ask(api, '{ studies { nodes { id } } }');
    expect(data.studies.nodes.length).toBe(1);
  });
});

test.each([
  [
    'a hyperparameter that there is not',
    { space: [{ name: 'learningrate', low: 0.1, high: 1 }] },
    ['space', '0'],
    /no hyperparameter learningrate. Did you mean learningRate\?/,
  ],
  [
    'a range that leaves that of the hyperparameter',
    { space: [{ name: 'learningRate', low: 1, high: 20 }] },
    ['space', '0'],
    /learningRate cannot be 20: 20 is too large/,
  ],
  ['a range of names', { space: [{ name: 'optimizer', low: 0, high: 1 }] }, ['space', '0'], /takes ADAMW or SGD: say the `choices`/],
  ['a logarithm of zero', { space: [{ name: 'weightDecay', low: 0, high: 0.1, log: true }] }, ['space', '0'], /`low` must be above 0/],
  ['a hyperparameter that is fixed too', { space: [{ name: 'epochs', low: 1, high: 2 }] }, ['space', '0'], /is in `fixed` too/],
  ['a half image size', { space: [{ name: 'imageSize', low: 32.5, high: 64 }] }, ['space', '0'], /whole numbers: 32.5, 64/],
  [
    'a condition on what is not searched',
    { space: [{ name: 'momentum', low: 0.8, high: 0.9, when: { name: 'optimizer', values: ['SGD'] } }] },
    ['space', '0'],
    /depends on optimizer, which is not searched/,
  ],
  ['an objective of another task', { objectives: ['MAP50'] }, ['objectives'], /MAP50 is not measured for resnet18/],
  ['only the size as objective', { objectives: ['MACS'] }, ['objectives'], /say only how large or fast a model is/],
  ['frozen random weights', { fixed: { epochs: 2, freeze: 'STAGE1' } }, ['fixed'], /freeze is STAGE1, but the training starts from random/],
  [
    'frozen random weights in its space',
    { space: [{ name: 'freeze', choices: ['NONE', 'BACKBONE'] }] },
    ['space'],
    /freeze is BACKBONE, but the training starts from random weights, which the frozen layers would keep/,
  ],
  [
    'latency of more image sizes than are measured',
    { objectives: ['TOP1', 'LATENCY'], space: [{ name: 'imageSize', low: 32, high: 64 }] },
    ['space'],
    /LATENCY is measured for each imageSize, at most 16; the space has 33/,
  ],
  [
    'latency of trials with other channels',
    { objectives: ['TOP1', 'LATENCY'], space: [{ name: 'channels', choices: ['RGB', 'GREY'] }] },
    ['space'],
    /LATENCY is measured for one value of `channels`/,
  ],
  ['several objectives for TPE', { sampler: 'TPE' }, ['sampler'], /TPE optimises one objective/],
  ['a grid without steps', { sampler: 'GRID' }, ['space'], /needs `choices` or a `step` of learningRate/],
  [
    'halving of trials with different epochs',
    { space: [{ name: 'epochs', low: 1, high: 4 }], fixed: {}, halving: { firstEpoch: 1 } },
    ['halving'],
    /fix `epochs`/,
  ],
  ['a fixed value out of its range', { fixed: { epochs: 10 ** 9 } }, ['fixed', 'epochs'], /1000000000 is too large/],
  ['a value to begin with out of its range', { begin: [{ learningRate: 50 }] }, ['begin', '0', 'learningRate'], /50 is too large/],
  [
    'a step that is lost in the arithmetic',
    { space: [{ name: 'learningRate', low: 0.001, high: 0.1, step: 1e-300 }] },
    ['space', '0'],
    /more than 1000000 steps of 1e-300 in its range/,
  ],
  ['more trials than a study has', { generations: 501 }, ['generations'], /at most 1000 trials; this would be 1002/],
  ['a target in per cent', { target: 95 }, ['target'], /TOP1 is at most 1, so that 95 is never reached: say the target as a share/],
  [
    'a trial to begin with outside of the space',
    { begin: [{ learningRate: 0.5 }] },
    ['begin', '0'],
    /learningRate is 0.5 there, which is not in the space/,
  ],
  [
    'a preset for another task than the dataset',
    { preset: 'yolov8n', space: null, objectives: null },
    ['datasetVersionId'],
    /The dataset is for CLASSIFICATION/,
  ],
])('startTuning is refused with %s', async (_what, changes, field, message) => {
  const [error] = await refusalOf(changes);
  expect(error).toMatchObject({ field, message: expect.stringMatching(message) });
});

test('the space of a preset stands beside the ranges of its hyperparameters, and lies inside them', async () => {
  const { data } = await ask(
    api,
    '{ presets { name hyperparameters { name minimum maximum values default search { type low high log choices when { name values } } } } }',
  );
  for (const { hyperparameters } of data.presets) {
    const searched = hyperparameters.filter(({ search }: { search: object | null }) => search);
    expect(searched.length).toBeGreaterThan(4);
    for (const { minimum, maximum, values, default: usual, search } of searched) {
      for (const choice of search.choices ?? [])
        expect(values ? values.includes(choice) : choice >= minimum && choice <= maximum).toBe(true);
      if (search.choices) expect(search.choices).toContain(usual);
      else expect([search.low >= minimum, search.high <= maximum, search.low <= usual, usual <= search.high]).toEqual(Array(4).fill(true));
    }
  }
});

interface Seen {
  __typename: string;
  seq: number;
  number?: number;
}

/** All events of a job, as a subscriber sees them. */
async function events(id: string): Promise<Seen[]> {
  const query = 'subscription ($id: ID!) { jobEvents(id: $id) { __typename seq ... on JobTrialEvent { number outcome values } } }';
  const seen: Seen[] = [];
  await withEvents(
    api.url,
    query,
    api.token,
    async (items) => {
      for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) seen.push(answer.data.jobEvents);
    },
    { id },
  );
  return seen;
}
