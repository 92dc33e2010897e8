/** What `predict` is asked and answers: read by the host's routes, its OpenAPI document and GraphQL. */
import { z } from 'zod';

/** What the address of `predict` may say. */
export const PredictQuery = z.object({
  top: z
    .int('A whole number is needed, 1 or more.')
    .min(1, 'At least one class is answered.')
    .default(5)
    .describe('Most classes that are answered.'),
  score: z
    .number('A score is a number from 0 to 1.')
    .min(0, 'A score is from 0 to 1.')
    .max(1, 'A score is from 0 to 1.')
    .optional()
    .describe("Least score of a detection, in place of the model's `scoreThreshold`."),
});
export type PredictQuery = z.infer<typeof PredictQuery>;

const label = z.string().nullable().describe('Null where the model has no labels.');
const index = z.int().min(0).describe('Of the class, from 0.');

export const Classes = z.object({
  classes: z.array(z.object({ label, index, probability: z.number() })).describe('In falling order of probability.'),
});
export type Classes = z.infer<typeof Classes>;

export const Detections = z.object({
  detections: z
    .array(
      z.object({
        label,
        index,
        score: z.number(),
        box: z
          .object({ x: z.number(), y: z.number(), width: z.number(), height: z.number() })
          .describe('Left, top and size in pixels of the upright image (its EXIF orientation applied) that was sent.'),
      }),
    )
    .describe('In falling order of score.'),
});
export type Detections = z.infer<typeof Detections>;
