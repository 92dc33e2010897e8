/**
 * Specifications that an earlier version of the program has stored. They are complete as that version understood them. Fields that a later
 * version added are filled in here with what the earlier one did, so that a job which waited over an upgrade continues as it began. Rows of this table are only added.
 */

import { type PresetName, preprocessOf } from './presets.ts';
import type { JobKindName } from './specs.ts';
import type { Job } from './tables.ts';

/** The form in which specifications are stored now. It grows by one when a kind's specification gets a field. */
export const STORED_SPEC_VERSION = 8;

type Stored = Record<string, unknown>;
export type StoredJob = Pick<Job, 'kind' | 'specJson' | 'specVersion'>;

/** What the specifications of each version lack, by kind. A hyperparameter says it by itself: `before` in `presets.ts`. */
const lacking: Record<number, Partial<Record<JobKindName, (stored: Stored) => Stored>>> = {
  1: {
    TRAIN: ({ preset, hyperparameters }) => ({
      convert: true,
      checkpointSeconds: 60,
      cacheBytesMax: 2 ** 31,
      preprocess: preprocessOf(preset as PresetName, hyperparameters as { imageSize: number }),
    }),
    CONVERT: () => ({ conversion: { opset: 18, relativeTolerance: 1e-4 } }),
    EVALUATE: () => ({ outputLayout: null }),
    IMPORT_MODEL: () => ({ task: 'CLASSIFICATION' }),
    IMPORT_DATASET: () => ({ task: 'CLASSIFICATION' }),
  },
  2: {
    IMPORT_MODEL: () => ({ data: null }),
  },
  3: {
    BENCHMARK: () => ({ scenario: 'SINGLE_STREAM', instances: [1] }),
    IMPORT_DATASET: () => ({ nameEncoding: null, onProblem: 'REFUSE', leftOutShareMax: 0.05 }),
  },
  4: {
    TRAIN: () => ({ stopAfterEpoch: null, resumeOfJobId: null }),
  },
  5: {
    COMPRESS: () => ({ recover: null }),
  },
  6: {
    EVALUATE: () => ({ testTimeAugmentation: 'NONE' }),
    TRAIN: () => ({ workers: null }),
  },
  7: {
    TRAIN: () => ({ processes: 1 }),
  },
};

/** A job's specification with what its version did not say. */
export function storedSpec({ kind, specJson, specVersion }: StoredJob): Stored {
  let stored = specJson as Stored;
  for (let version = specVersion; version < STORED_SPEC_VERSION; version += 1)
    stored = { ...lacking[version]?.[kind]?.(stored), ...stored };
  return stored;
}
