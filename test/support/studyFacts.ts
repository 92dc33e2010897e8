/** The facts of a study that nobody ran: 24 trials, two objectives, halving, a copy and a trial without a result. */
import type { JobFacts, StudyFacts, TrialFacts } from '../../src/reports/jobs/facts.ts';
import { frontOf } from '../../src/tuning/studies.ts';
import type { Trial } from '../../src/tuning/tables.ts';

export const jobFacts: JobFacts = {
  jobId: 'job-1',
  state: 'RUNNING',
  failure: null,
  createdAt: '2026-01-01T00:00:00.000Z',
  startedAt: null,
  endedAt: null,
  durationMs: 0,
  attempts: [],
};
export const noDataset = { versionId: 'version-1', name: null, number: null, contentHash: null, classes: null, images: null };

const none = { low: null, high: null, log: false, step: null, choices: null, when: null };
const space: StudyFacts['space'] = [
  { ...none, name: 'learningRate', type: 'FLOAT', low: 0.0003, high: 0.03, log: true },
  { ...none, name: 'optimizer', type: 'CHOICE', choices: ['ADAMW', 'SGD'] },
  { ...none, name: 'momentum', type: 'FLOAT', low: 0.8, high: 0.99, when: { name: 'optimizer', values: ['SGD'] } },
  { ...none, name: 'imageSize', type: 'INT', low: 32, high: 64, step: 32 },
];

function trialOf(number: number): TrialFacts {
  const [isSgd, size] = [number % 3 === 0, number % 2 === 0 ? 32 : 64];
  const learningRate = 0.0003 * 10 ** (2 * Math.sin(number) ** 2);
  const top1 = 0.9 - 0.1 * Math.abs(Math.log10(learningRate / 0.003)) + (size === 64 ? 0.05 : 0);
  const state = number === 7 ? 'WORST' : number % 4 > 1 ? 'STOPPED' : 'COMPLETE';
  return {
    number,
    generation: Math.floor(number / 8),
    state,
    copyOf: number === 9 ? 1 : null,
    epochs: state === 'STOPPED' ? 1 : 3,
    values: state === 'WORST' ? null : [top1, size === 64 ? 333_649_920 : 83_417_088],
    params: { learningRate, optimizer: isSgd ? 'SGD' : 'ADAMW', ...(isSgd ? { momentum: 0.8 + number / 200 } : {}), imageSize: size },
  };
}

const objectives: StudyFacts['objectives'] = ['TOP1', 'MACS'];
const trials = Array.from({ length: 24 }, (_, n) => trialOf(n));
const rows = trials.map(({ values, params, state, ...one }) => ({ ...one, valuesJson: values, outcome: state })) as unknown as Trial[];

export const madeUpStudy: StudyFacts = {
  ...jobFacts,
  kind: 'TUNE',
  state: 'SUCCEEDED',
  endedAt: '2026-01-01T01:00:00.000Z',
  durationMs: 3_600_000,
  studyId: 'study-1',
  model: '<svg onload=alert(1)>',
  dataset: { ...noDataset, name: 'digits', number: 1, contentHash: 'd'.repeat(64), classes: 10, images: { train: 960, val: 240, test: 0 } },
  preset: 'resnet50',
  sampler: 'NSGA2',
  space,
  fixed: { epochs: 3 },
  objectives,
  population: 8,
  seed: 7,
  halving: { firstEpoch: 1, reduction: 2 },
  registerMax: 1,
  device: 'cpu',
  cpuThreads: 1,
  trialsWanted: 24,
  trials,
  front: frontOf({ objectives }, rows).map(({ number }) => number),
  importance: [
    { name: 'learningRate', share: 0.6 },
    { name: 'imageSize', share: 0.3 },
    { name: 'optimizer', share: 0.07 },
    { name: 'momentum', share: 0.03 },
  ],
  registered: [],
};
