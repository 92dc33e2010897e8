/** What a study searches, and what it asks the trainer for its next trials. Part of the protocol (`protocol.ts`). */
import { z } from 'zod';

/** Hyperparameters that a study searches at once, and trials of a study. */
export const dimensionsMax = 30;
export const trialsMax = 1000;
export const populationMax = 100;
/** Image sizes of a study that are measured. */
export const imageSizesMax = 16;

const value = z.union([z.number(), z.string().max(100), z.boolean()]);

export type HyperparameterValue = z.infer<typeof value>;

/** A set of hyperparameters by name. */
export const Params = z.record(z.string().max(100), value);
export type Params = z.infer<typeof Params>;

export const Dimension = z
  .object({
    name: z.string().min(1).max(100).describe('Of the hyperparameter.'),
    type: z.enum(['INT', 'FLOAT', 'CHOICE']),
    low: z.number().nullable().describe('Null for a CHOICE.'),
    high: z.number().nullable().describe('Null for a CHOICE.'),
    log: z.boolean().describe('Whether the logarithm is searched evenly.'),
    step: z.number().gt(0).nullable().describe('Between two values, counted from low; null: 1 for an INT, none for a FLOAT.'),
    choices: z.array(value).min(1).max(50).nullable().describe('The values of a CHOICE, else null.'),
    when: z
      .object({ name: z.string().max(100), values: z.array(value).min(1).max(50) })
      .nullable()
      .describe('It has an effect only while another dimension, a CHOICE, has one of these values.'),
  })
  .meta({ id: 'Dimension' });
export type Dimension = z.infer<typeof Dimension>;

/** Beside the range of a hyperparameter: what is searched of it unless the user says another space. */
export type Search = ({ low: number; high: number; log?: boolean; step?: number } | { choices: HyperparameterValue[] }) & {
  when?: Dimension['when'];
};

export const samplers = {
  NSGA2:
    'A genetic algorithm, NSGA-II: the best trials of all generations so far are the parents of the next one. For one objective or several.',
  RANDOM: 'Independent random values: what any other sampler has to beat.',
  TPE: 'A tree-structured Parzen estimator: values that were good before are proposed more often. For one objective.',
  GRID: 'All combinations in their order. Each dimension must be a choice, an integer, or have a step.',
} as const;
export type Sampler = keyof typeof samplers;

/** Of a training: how halving stops it. */
export const stopAfterEpoch = z
  .int()
  .min(1)
  .nullable()
  .default(null)
  .describe('The run ends after this epoch as if it were the last, and can be resumed from there to the same result; null: at its end.');

export const Ask = z.object({
  sampler: z.enum(Object.keys(samplers) as [Sampler, ...Sampler[]]),
  space: z.array(Dimension).min(1).max(dimensionsMax),
  directions: z
    .array(z.enum(['MAXIMIZE', 'MINIMIZE']))
    .min(1)
    .max(4)
    .describe('Of the objectives.'),
  population: z.int().min(2).max(populationMax).describe('Trials of a generation.'),
  seed: z.int().min(0).max(0xffff_ffff).describe('Of the study.'),
  trials: z
    .array(
      z.object({
        generation: z.int().min(0),
        params: Params,
        values: z.array(z.number()).max(4).nullable().describe('Of the objectives; null where the trial counts as worse than any other.'),
      }),
    )
    .max(trialsMax)
    .describe('That have ended, in the order of their numbers from 0.'),
  pending: z.array(Params).max(populationMax).describe('Of trials behind those that have not ended.'),
  generation: z.int().min(0).describe('Of the proposals.'),
  count: z.int().min(0).max(populationMax).describe('Proposals wanted. GRID gives fewer at its end.'),
});

export const AskResult = z
  .object({
    proposals: z.array(Params).max(populationMax).describe('In the order of the numbers of the next trials.'),
    importance: z
      .array(z.object({ name: z.string(), share: z.number().min(0).max(1) }))
      .describe('Of each hyperparameter for being among the best trials (PED-ANOVA), largest first; empty for few trials.'),
  })
  .meta({ id: 'AskResult' });
export type AskResult = z.infer<typeof AskResult>;
