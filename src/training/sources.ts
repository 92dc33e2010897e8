import { eq } from 'drizzle-orm';
import { findDatasetEver, findVersionEver } from '../datasets/datasets.ts';
import { imageFiles } from '../datasets/imageFiles.ts';
import { type DatasetVersion, dataset } from '../datasets/tables.ts';
import type { Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import type { JobServices } from '../jobs/kinds.ts';
import type { PresetName } from '../jobs/presets.ts';
import type { Spec } from '../jobs/specs.ts';
import { findModel, findModelVersionEver } from '../models/models.ts';
import { type ModelVersion, model } from '../models/tables.ts';
import { blobPath, findArtifact } from '../storage/blobs.ts';
import type { Artifact } from '../storage/tables.ts';
import { type OutputLayout, PreprocessSpec, type Task } from '../vision/spec.ts';

type DatasetRef = Extract<Spec, { kind: 'TRAIN' }>['dataset'];
type ModelRef = Extract<Spec, { kind: 'EVALUATE' }>['model'];

/** A dataset version that a job can read; an InputError otherwise. */
export function requireReadyDataset(db: Queryable, id: string): DatasetVersion & { classesJson: string[]; contentHash: string } {
  const row = findVersionEver(db, id);
  if (!row) refuse('NOT_FOUND', 'datasetVersionId', 'There is no such dataset version.');
  if (row.deletedAt !== null) refuse('NOT_FOUND', 'datasetVersionId', `${nameOfDataset(db, row)} was deleted: use another one.`);
  const { state, classesJson, contentHash } = row;
  if (state !== 'READY' || !classesJson || !contentHash)
    refuse('INVALID', 'datasetVersionId', `The dataset version is ${state}, not READY.`);
  return { ...row, classesJson, contentHash };
}

const nameOfDataset = (db: Queryable, { datasetId, number }: DatasetVersion): string =>
  `Version ${number} of the dataset ${findDatasetEver(db, datasetId)?.name}`;

/** The dataset version that was named for a model, by default that of its training; null where there is none. */
export function datasetFor(db: Queryable, source: ModelVersion, named: string | null | undefined): string | null {
  const { datasetVersionId: own } = source;
  if (named || own === null) return named ?? null;
  const row = findVersionEver(db, own);
  if (row && row.deletedAt !== null) {
    const what = `${nameOfDataset(db, row)}, on which the model was trained, was deleted`;
    refuse('NOT_FOUND', 'datasetVersionId', `${what}: name another one with \`datasetVersionId\`.`);
  }
  return own;
}

/** An InputError where the model to which a job would add its version was deleted. */
export function requireModel(db: Queryable, id: string, field: string): void {
  if (!findModel(db, id))
    refuse('NOT_FOUND', field, 'The model was deleted: nobody would see a version of it. Start anew with `modelName`.');
}

/** What the model of a version does with an image. */
export function taskOf(db: Queryable, { modelId }: Pick<ModelVersion, 'modelId'>): Task {
  const found = db.select({ task: model.task }).from(model).where(eq(model.id, modelId)).get();
  if (!found) throw new Error(`Model ${modelId} is gone.`);
  return found.task;
}

/** An InputError where the data is for another task than the model. */
export function requireTask(db: Queryable, { datasetId }: Pick<DatasetVersion, 'datasetId'>, task: Task): void {
  const found = db.select({ task: dataset.task }).from(dataset).where(eq(dataset.id, datasetId)).get();
  if (found?.task !== task) refuse('INVALID', 'datasetVersionId', `The dataset is for ${found?.task}, the model for ${task}.`);
}

/** A model version that a job can read; otherwise an InputError that names `field`, the argument that it comes from. */
export function requireReadyModel(
  db: Queryable,
  id: string,
  field: string | string[] = 'modelVersionId',
): ModelVersion & { artifactId: string } {
  const row = findModelVersionEver(db, id);
  if (!row) refuse('NOT_FOUND', field, 'There is no such model version.');
  if (row.deletedAt !== null) {
    const found = db.select({ name: model.name }).from(model).where(eq(model.id, row.modelId)).get();
    refuse('NOT_FOUND', field, `Version ${row.number} of the model ${found?.name} was deleted: use another one.`);
  }
  const { state, artifactId } = row;
  if (state !== 'READY' || !artifactId) refuse('INVALID', field, `The model version is ${state}, not READY.`);
  return { ...row, artifactId };
}

/** A version's class names; an InputError where nobody has named them. */
export function requireLabels({ labelsJson }: ModelVersion): string[] {
  return labelsJson ?? refuse('INVALID', 'modelVersionId', 'The model version names no classes: set them with `describeModelVersion`.');
}

/** The model has to know each class of the dataset, by its name and once: their order says nothing, and it may know more. */
export function requireClasses(version: ModelVersion, classes: readonly string[]): void {
  const labels = requireLabels(version);
  const missing = classes.filter((name) => !labels.includes(name));
  if (missing.length > 0) {
    refuse(
      'INVALID',
      'datasetVersionId',
      `The model does not know ${missing.length} of the dataset's ${classes.length} classes: ${firstOf(missing)}. ` +
        `It knows ${firstOf(labels)}. Set its labels with \`describeModelVersion\` where they have other names.`,
    );
  }
  const twice = classes.filter((name) => labels.indexOf(name) !== labels.lastIndexOf(name));
  if (twice.length > 0)
    refuse(
      'INVALID',
      'modelVersionId',
      `The model has more than one class of the name ${firstOf(twice)}. Set its labels with \`describeModelVersion\`.`,
    );
}

const firstOf = (names: readonly string[]): string => names.slice(0, 10).join(', ') + (names.length > 10 ? ', …' : '');

/** An InputError where nobody has said how an image becomes the input. */
export function requirePreprocess({ preprocessJson }: ModelVersion): void {
  if (!preprocessJson) refuse('INVALID', 'modelVersionId', 'The model version has no preprocessing: set it with `describeModelVersion`.');
}

/** Path of a file that a model version owns. */
export function versionFile({ config, db }: JobServices, versionId: string, kind: Artifact['kind']): string {
  const found = findArtifact(db, 'MODEL_VERSION', versionId, kind);
  if (!found) throw new Error(`Model version ${versionId} has no artifact ${kind}.`);
  return blobPath(config.dataDir, found.sha256);
}

/** The dataset as a child reads it. */
export async function datasetRef(services: JobServices, id: string): Promise<DatasetRef> {
  const row = requireReadyDataset(services.db, id);
  const manifest = findArtifact(services.db, 'DATASET_VERSION', id, 'MANIFEST');
  if (!manifest) throw new Error(`Dataset version ${id} has no manifest.`);
  return {
    ...(await imageFiles(services, row)),
    manifest: blobPath(services.config.dataDir, manifest.sha256),
    classes: row.classesJson,
    contentHash: row.contentHash,
  };
}

/** The model as a child reads it. `outputLayout`: what the user says of a foreign detector. */
export function modelRef(services: JobServices, id: string, outputLayout: OutputLayout | null = null): ModelRef {
  const row = requireReadyModel(services.db, id);
  return {
    format: row.format,
    file: versionFile(services, id, row.format === 'ONNX' ? 'ONNX' : 'WEIGHTS'),
    task: taskOf(services.db, row),
    preset: row.preset as PresetName | null,
    classes: requireLabels(row),
    preprocess: PreprocessSpec.parse(row.preprocessJson),
    outputLayout,
  };
}
