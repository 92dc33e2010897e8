import type { tasks, versionStates } from '../datasets/tables.ts';
import type { OutputLayout } from '../vision/spec.ts';
import { builder, enumValues } from './builder.ts';

/** Enums that several domains share. */
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

export const OutputLayoutType = builder.enumType('DetectorOutputLayout', {
  description: 'How the outputs of a detector hold boxes and scores, in pixels of its input.',
  values: enumValues<OutputLayout>({
    BOXES_SCORES: 'Two outputs: boxes [N, anchors, 4] as left, top, right, bottom, and scores [N, anchors, classes].',
    CENTRES_FIRST: 'One output [N, 4 + classes, anchors]: centre x, centre y, width, height, then the scores.',
    OBJECTNESS:
      'One output [N, anchors, 5 + classes]: centre x, centre y, width, height, objectness, then the scores, which it multiplies.',
    SUPPRESSED: 'One output [N, boxes, 6]: left, top, right, bottom, score, class, from a graph that suppresses overlaps itself.',
  }),
});
