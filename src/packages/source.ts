/** What a package is made of. */
import type { Queryable } from '../db.ts';
import { lastServed } from '../deployments/deployments.ts';
import { modelConfigOf, type PortableModelConfig } from '../deployments/modelConfig.ts';
import { ApiError, notFound } from '../errors.ts';
import { OnnxMeta } from '../jobs/results.ts';
import { findModel, findModelVersion } from '../models/models.ts';
import { inputsOf, outputsOf } from '../models/signature.ts';
import type { Model, ModelVersion } from '../models/tables.ts';

export const packageForms = ['BUNDLE', 'TRITON', 'KSERVE'] as const;
export type PackageForm = (typeof packageForms)[number];

/** Files of a package by their path. */
export type Texts = Record<string, string>;

export const jsonText = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

export const labelsText = (labels: readonly string[]): string => labels.map((label) => `${label}\n`).join('');

export interface PackageSource {
  model: Model;
  version: ModelVersion & { sha256: string };
  /** How it served last, or would serve without settings. */
  config: PortableModelConfig;
  inputs: ReturnType<typeof inputsOf>;
  outputs: ReturnType<typeof outputsOf>;
}

/** Throws an ApiError where a version cannot be packaged. */
export function readSource(db: Queryable, modelVersionId: string): PackageSource {
  const version = findModelVersion(db, modelVersionId);
  const model = version && findModel(db, version.modelId);
  if (!version || !model) notFound('model version');
  const { number, state, format, sha256 } = version;
  if (state !== 'READY' || sha256 === null) refusePackage(version, `It is ${state}, not READY.`);
  if (format !== 'ONNX') refusePackage(version, `It is a ${format}: convert it to ONNX first.`);
  // A deployment's name is of fewer letters than a model's, and stands nowhere in a package.
  const settingsJson = lastServed(db, version.id)?.settingsJson ?? {};
  const made = modelConfigOf(db, { name: 'package', number, modelVersionId: version.id, settingsJson });
  if ('problem' in made) refusePackage(version, made.problem);
  const meta = OnnxMeta.parse(version.signatureJson);
  return { model, version: { ...version, sha256 }, config: made.model, inputs: inputsOf(meta), outputs: outputsOf(meta) };
}

export function refusePackage({ number }: Pick<ModelVersion, 'number'>, why: string): never {
  throw new ApiError('INVALID', `Version ${number} cannot be packaged. ${why}`);
}
