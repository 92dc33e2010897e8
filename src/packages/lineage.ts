/** Where the weights of a package come from: as data, and as a note for people. */
import { findDatasetEver, findVersionEver } from '../datasets/datasets.ts';
import type { Queryable } from '../db.ts';
import { findJob } from '../jobs/jobs.ts';
import { presets } from '../jobs/presets.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { parentsOf } from '../models/lineage.ts';
import { findModelEver } from '../models/models.ts';
import type { ModelVersion } from '../models/tables.ts';
import { listEvaluations } from '../training/evaluations.ts';
import type { TrainRequest } from '../training/train.ts';
import type { PackageSource } from './source.ts';

/** More than people look at. */
const evaluationsMax = 100;

export function lineageOf(db: Queryable, { version }: PackageSource) {
  return {
    ...versionOf(db, version),
    gate: version.gateJson,
    evaluations: listEvaluations(db, version.id, evaluationsMax).map(({ split, engine, metricsJson, datasetVersionId }) => ({
      dataset: datasetOf(db, datasetVersionId),
      split,
      engine,
      metrics: metricsJson,
    })),
    parents: parentsOf(db, version).map((parent) => versionOf(db, parent)),
  };
}
type Lineage = ReturnType<typeof lineageOf>;
type Version = ReturnType<typeof versionOf>;

function versionOf(db: Queryable, version: ModelVersion) {
  const { modelId, number, origin, format, precision, preset, sizeBytes, sha256, weightsHash, lineageHash, createdAt } = version;
  return {
    model: findModelEver(db, modelId)?.name ?? null,
    version: number,
    origin,
    format,
    precision,
    preset,
    sizeBytes,
    sha256,
    weightsHash,
    lineageHash,
    createdAt: new Date(createdAt).toISOString(),
    dataset: version.datasetVersionId === null ? null : datasetOf(db, version.datasetVersionId),
    training: trainingOf(db, version),
  };
}

function datasetOf(db: Queryable, versionId: string) {
  const version = findVersionEver(db, versionId);
  const name = version && findDatasetEver(db, version.datasetId)?.name;
  return { name: name ?? null, version: version?.number ?? null, contentHash: version?.contentHash ?? null };
}

/** Null for a version that was not trained, and where its job was deleted. */
function trainingOf(db: Queryable, { origin, jobId }: ModelVersion) {
  const job = origin === 'TRAINED' && jobId !== null ? findJob(db, jobId) : undefined;
  if (job?.kind !== 'TRAIN') return null;
  const { preset, hyperparameters, init, seed, cpuThreads, processes, device } = storedSpec(job) as TrainRequest;
  return { init: init.from, preset, hyperparameters, seed, cpuThreads, processes, device };
}

/** What is known of the rights in a package: Whetstone stores where weights come from, not their licences. */
export function noticeText(lineage: Lineage): string {
  const chain: Version[] = [lineage, ...lineage.parents];
  const root = chain.at(-1) as Version;
  const publicWeights = chain.some(({ training }) => training?.init === 'PRETRAINED');
  const steps = chain.map((version) => `- ${version.model} version ${version.version}: ${madeHow(version)}\n  SHA-256 ${version.sha256}\n`);
  const notes = [
    ...(root.origin === 'UPLOADED'
      ? [`${root.model} version ${root.version} was uploaded. Ask whoever uploaded it under which licence its weights are.`]
      : []),
    ...(publicWeights
      ? [
          'torchvision is under the BSD 3-Clause License. Its public weights were trained on ImageNet, whose images have terms of their own.',
        ]
      : []),
    'Weights that were trained on a dataset may be bound by the terms of its images.',
    'predict.py, where it is in this package, is part of Whetstone and under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).',
  ];
  return `Where the weights come from, the newest version first:\n\n${steps.join('')}\nLicences:\n\n${notes.map((note) => `- ${note}\n`).join('')}`;
}

function madeHow({ origin, dataset, training, precision }: Version): string {
  if (origin === 'UPLOADED') return 'uploaded by a user';
  if (origin === 'CONVERTED') return 'converted to ONNX from the version below';
  if (origin === 'OPTIMIZED') return `compressed to ${precision} from the version below`;
  if (origin === 'DESCRIBED') return 'the file of the version below with other labels or preprocessing';
  const from = {
    SCRATCH: 'random weights',
    PRETRAINED: `torchvision's public weights of ${training && (presets[training.preset].backbone ?? training.preset)}`,
    WEIGHTS: 'the weights of the version below',
    CHECKPOINT: 'the training of the version below',
    unknown: 'unknown weights, since its job was deleted',
  }[training?.init ?? 'unknown'];
  return `trained from ${from} on dataset ${dataset?.name} version ${dataset?.version}`;
}
