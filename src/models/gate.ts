/**
 * A gate is data: which output was compared, how far it is from its reference, and how far it may be. Each output is judged by itself: the
 * boxes of a detector are hundreds of times as large as its scores, so one limit for both would let any scores pass.
 */
import { z } from 'zod';

export const Comparison = z.object({
  /** Name of the output, or what of it was compared. */
  output: z.string(),
  /** Largest absolute difference over all inputs; null when a value was not a number or the shapes differed. */
  largestDifference: z.number().nullable(),
  /** Largest absolute difference that passes. */
  tolerance: z.number(),
});
export type Comparison = z.infer<typeof Comparison>;

/**
 * Largest difference of an output of a model of this precision, relative to the largest magnitude of the same output's reference. FP32 as in
 * the conversion gate; a 16-bit float has 11 bits; a step of INT8 is 1/127 of the range, and other kernels may round otherwise in each layer.
 */
export const tolerances = { FP32: 1e-4, FP16: 1e-2, INT8: 5e-2 } as const;
/** An output whose reference is all but zero still may differ by rounding. */
export const magnitudeMin = 1e-2;

/** What is wrong with each output that does not pass; empty when all pass. */
export function gateFailures(comparisons: readonly Comparison[]): string[] {
  return comparisons.flatMap(({ output, largestDifference, tolerance }) => {
    if (largestDifference === null) return [`Output ${output} is not a number, or has another shape than the reference.`];
    if (largestDifference <= tolerance) return [];
    return [`Output ${output} differs by up to ${largestDifference.toPrecision(3)}; ${tolerance.toPrecision(3)} is allowed.`];
  });
}
