import { z } from 'zod';
import type { Config } from '../../config.ts';
import { ImportDatasetSpec, SPEC_VERSION } from '../../jobs/specs.ts';
import { blobPath } from '../../storage/blobs.ts';
import { codeVersion } from '../../version.ts';

const { fileName, task, nameEncoding, onProblem, leftOutShareMax, splitSeed, splitShares, cpuThreads } = ImportDatasetSpec.shape;

/** `specJson` of an IMPORT_DATASET job. */
export const ImportDatasetRequest = z.object({
  datasetVersionId: z.string(),
  /** Of the zip. */
  sha256: z.string(),
  fileName,
  task,
  nameEncoding: nameEncoding.unwrap(),
  onProblem: onProblem.unwrap(),
  leftOutShareMax: leftOutShareMax.unwrap(),
  splitSeed,
  splitShares,
  cpuThreads,
});
export type ImportDatasetRequest = z.infer<typeof ImportDatasetRequest>;

export type ImportSettings = Pick<Config, 'dataDir' | 'importFilesMax' | 'importBytesMax'>;

/** The request to the child. */
export function specOf(config: ImportSettings, request: ImportDatasetRequest): ImportDatasetSpec {
  const { dataDir, importFilesMax, importBytesMax } = config;
  const { datasetVersionId: _, sha256, ...rest } = request;
  return ImportDatasetSpec.parse({
    kind: 'IMPORT_DATASET',
    specVersion: SPEC_VERSION,
    codeVersion,
    file: blobPath(dataDir, sha256),
    ...rest,
    limits: { filesMax: importFilesMax, extractedBytesMax: importBytesMax ?? null },
  });
}
