/** What an inference host serves and how: one JSON file, checked once. docs/serving.md explains each field with its default. */
import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { HostEngine, ModelEngine } from '../engine/hostEngine.ts';
import { AddressName } from '../naming.ts';
import { rangeProblem } from '../ranges.ts';
import { strict } from '../suggest.ts';
import { detectionDefinition } from '../vision/detections.ts';
import { OutputLayout, PreprocessSpec, Task } from '../vision/spec.ts';

const mebibyte = 2 ** 20;
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'A SHA-256 is 64 hexadecimal digits in lower case.');

/** 1 goes before 2, and so on. */
export const Priority = z.int().min(1).max(10);

/** Longest deadline of a request. */
export const deadlineMsMax = 60_000;

/** From which score on people are shown a detection. */
const shownScore = 0.25;

/**
 * How a model is served. Each setting stands once, here: a deployment's settings in GraphQL, and what `deploy` checks and stores, are made
 * from these rows.
 */
export const ModelSettings = z.object({
  scores: z.enum(['LOGITS', 'PROBABILITIES']).default('LOGITS').describe('What the output of a classifier is.'),
  outputLayout: OutputLayout.optional().describe(
    'How the outputs of a detector hold boxes and scores. Needed where their shapes leave more than one reading, as those of two outputs do.',
  ),
  scoreThreshold: z
    .number()
    .min(0)
    .max(1)
    .default(shownScore)
    .describe('Least score of a detection that is answered; a request may say another one. Every measurement goes down to 0.001.'),
  nmsIou: z
    .number()
    .min(0)
    .max(1)
    .default(detectionDefinition.nmsIou)
    .describe('Overlap with a better box of its class at which one falls.'),
  boxesMax: z.int().min(1).max(1000).default(detectionDefinition.boxesMax).describe('Most detections of an image.'),
  deadlineMs: z
    .number()
    .gt(0)
    .max(deadlineMsMax)
    .default(1000)
    .describe('From the arrival of a request to its answer; a request may say another one.'),
  priority: Priority.default(5).describe('1 goes first, 10 last; a request may say a later one.'),
  batchMax: z
    .int()
    .min(1)
    .max(256)
    .default(1)
    .describe(
      'Most items of a request, and most that are computed together; more than 1 where a benchmark shows that an item is cheaper so.',
    ),
  engine: ModelEngine.describe('What runs the model; AUTO is the engine of the host.'),
  intraOpThreads: z
    .int()
    .min(1)
    .max(256)
    .optional()
    .describe('Threads of one run; without it the host’s. Times the runs that compute at once they may not be more than the cores.'),
  runMs: z
    .record(z.string().regex(/^\d{1,3}$/), z.number().gt(0))
    .default({})
    .describe('Measured time of a run, by the number of items in it: what admission starts from.'),
  maxImagePixels: z.int().min(1).max(100_000_000).default(25_000_000).describe('Largest image that `predict` decodes.'),
  dims: z.record(z.string(), z.int().min(1)).default({}).describe('Sizes of symbolic dimensions for the warm-up.'),
});
export type ModelSettings = z.infer<typeof ModelSettings>;

/** What stands in the place of a name in the routes of the protocol: `/v2/models/stats`. */
const reservedNames = ['stats'];

/** Of a model that is served, and so of a deployment. */
export const ServedName = AddressName.refine(
  (name) => !reservedNames.includes(name),
  'This is an address of the inference protocol: take another name.',
);

export const ModelConfig = strict({
  name: ServedName,
  version: z.int().min(1).describe('Revision number; a request that names none gets the greatest.'),
  file: z.string().describe('ONNX file; a relative path starts at the folder of the configuration.'),
  sha256: sha256.describe('Of the file. A file with another hash is not loaded.'),
  modelVersion: z.int().min(1).optional().describe('Number of the model version within its model: in a header of each answer.'),
  lineageHash: sha256.optional().describe('Of the model version: in a header of each answer.'),
  task: Task.default('CLASSIFICATION').describe('What `predict` answers.'),
  labels: z.array(z.string()).min(1).max(10_000).optional().describe('Names of the classes, in order.'),
  preprocess: PreprocessSpec.optional().describe('From an image to the input; without it there is no `predict`.'),
  ...ModelSettings.shape,
});
export type ModelConfig = z.infer<typeof ModelConfig>;

const HostSettings = strict({
  host: z.string().default('127.0.0.1').describe('Address that the host listens on.'),
  hostNames: z
    .array(z.string())
    .default([])
    .describe('Of a host without accounts: names with a dot by which clients call it, and from whose pages browsers may.'),
  port: z.int().min(0).max(65_535).default(8000).describe('0 takes a free one.'),
  engine: HostEngine,
  intraOpThreads: z.int().min(1).max(256).default(1).describe('Threads of one run.'),
  permits: z.int().min(1).max(256).optional().describe('Runs at the same time; without it cores / intraOpThreads, at most 16.'),
  workers: z
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe('Sets of buffers: requests between dispatch and the end of their run; without it two for each permit, and at least 10.'),
  queueRequestsMax: z.int().min(1).max(100_000).default(256).describe('Requests of one model that wait for dispatch.'),
  queueBytesMax: z
    .int()
    .min(1)
    .default(512 * mebibyte)
    .describe('Bytes that requests hold: bodies, decoded images, answers. One model can have three quarters.'),
  memoryBytesMax: z
    .int()
    .min(1)
    .optional()
    .describe('Resident memory that the process may have once a model is loaded; without it half of the machine’s.'),
  bodyBytesMax: z
    .int()
    .min(1)
    .max(1024 * mebibyte)
    .default(64 * mebibyte)
    .describe('Largest body, decompressed.'),
  accounts: strict({
    url: z
      .url({ protocol: /^https?$/, error: 'it is an address such as http://127.0.0.1:8080' })
      .regex(/^[^?#@]*$/, 'it is an address without a name, a query or a fragment')
      .describe('A server of Whetstone, whose WHETSTONE_REPLICA_TOKEN this process has too.'),
  })
    .optional()
    .describe('Whose accounts decide who may use the host; without it everybody may.'),
  models: z.array(ModelConfig).max(100).default([]),
});
export type HostConfig = Readonly<z.infer<typeof HostSettings>> & {
  readonly permits: number;
  readonly workers: number;
  readonly memoryBytesMax: number;
  readonly cores: number;
};

/** Beyond, nobody gets them without asking: each permit has a session of its own of every model, which takes memory and time to load. */
const permitsMax = 16;

/** Runs at the same time where nobody has said how many: HTTP needs no core of its own, since runs give way to it. */
export const permitsOf = (cores: number, intraOpThreads: number): number =>
  Math.min(permitsMax, Math.max(1, Math.floor(cores / intraOpThreads)));

/** The most threads of one run for which there are cores while as many runs as there are permits compute. */
export const threadsMaxOf = (cores: number, permits: number): number => Math.max(1, Math.floor(cores / permits));

/**
 * Settings as they are in the file; `folder` is where relative paths start. Throws one Error that names everything that is wrong.
 * `cores` are those that the process may use: the quota of its control group and its affinity count.
 */
export function parseHostConfig(settings: unknown, folder: string, cores = availableParallelism()): HostConfig {
  const parsed = HostSettings.safeParse(settings, { error: rangeProblem });
  if (!parsed.success) {
    refuseSettings(parsed.error.issues.map(({ path, message }) => `${path.length > 0 ? path.join('.') : 'The file'}: ${message}`));
  }
  const { data } = parsed;
  const memoryBytesMax =
    data.memoryBytesMax ?? Math.floor(Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY) / 2);
  const permits = data.permits ?? permitsOf(cores, data.intraOpThreads);
  const workers = data.workers ?? Math.max(10, 2 * permits);
  const problems: string[] = [];
  if (permits * data.intraOpThreads > Math.max(cores, data.intraOpThreads)) {
    problems.push(`permits: ${permits} × ${data.intraOpThreads} threads are more than the ${cores} cores. Take fewer of one of them.`);
  }
  if (workers < permits) problems.push(`workers: ${workers} are fewer than the ${permits} permits.`);
  const keys = data.models.map(modelKey);
  const twice = keys.find((key, i) => keys.indexOf(key) !== i);
  if (twice) problems.push(`models: ${twice} is there twice.`);
  if (problems.length > 0) refuseSettings(problems);
  return Object.freeze({
    ...data,
    permits,
    workers,
    memoryBytesMax,
    cores,
    models: data.models.map((model) => ({ ...model, file: resolve(folder, model.file) })),
  });
}

/** The settings in a file. `replicaToken`: what a server is asked with for its accounts. */
export function readHostConfig(file: string, replicaToken: string | undefined): HostConfig {
  const path = resolve(file);
  const config = parseHostConfig(JSON.parse(readFileSync(path, 'utf8')), dirname(path));
  if (config.models.length === 0) refuseSettings(['models: name at least one.']);
  if (config.accounts && !replicaToken) refuseSettings(['accounts: set WHETSTONE_REPLICA_TOKEN to what it is on the server.']);
  return config;
}

export const modelKey = ({ name, version }: Pick<ModelConfig, 'name' | 'version'>): string => `${name}/${version}`;

function refuseSettings(problems: string[]): never {
  throw new Error(`The configuration of the inference host is wrong.\n${problems.join('\n')}`);
}
