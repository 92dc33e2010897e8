import type { tasks, versionStates } from '../datasets/tables.ts';
import { builder, enumValues } from './builder.ts';

/** Enums that datasets, models and presets share. */
export const TaskType = builder.enumType('Task', {
  description: 'What a model does with an image.',
  values: enumValues<(typeof tasks)[number]>({
    CLASSIFICATION: 'One class for the whole image.',
    DETECTION: 'Boxes around objects, each with its class.',
  }),
});

export const VersionStateType = builder.enumType('VersionState', {
  description: 'Where a version of a dataset or a model stands.',
  values: enumValues<(typeof versionStates)[number]>({
    IMPORTING: 'Its job has not ended.',
    READY: 'Can be used. It never changes again.',
    FAILED: 'Its job failed or was cancelled: `job.failure` says why.',
  }),
});
