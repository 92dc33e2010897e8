import { z } from 'zod';
import { JobFailure, type JobKind } from '../jobs/kinds.ts';
import { launchTrainer } from '../jobs/python.ts';
import { AskResult, populationMax } from '../jobs/searchSpace.ts';
import { AskSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { type StoredJob, storedSpec } from '../jobs/storedSpec.ts';
import { codeVersion } from '../version.ts';
import { directionsOf } from './objectives.ts';
import { listTrials, requireStudy, studySettings } from './studies.ts';

/** `specJson` of an ASK job. */
export const AskRequest = z.object({
  studyId: z.string(),
  generation: z.int().min(0),
  count: z.int().min(0).max(populationMax),
});
export type AskRequest = z.infer<typeof AskRequest>;

export const askRequestOf = (job: StoredJob): AskRequest => AskRequest.parse(storedSpec(job));

/** What the trainer proposes next: a child of the TUNE job, which inserts the trials. */
export const askJob: JobKind = {
  timeLimitMs: 15 * 60_000,

  launch({ config, db }, { job }) {
    const { studyId, generation, count } = askRequestOf(job);
    const { sampler, space, objectives, population, seed } = studySettings(requireStudy(db, studyId));
    const trials = listTrials(db, studyId);
    return launchTrainer(
      config,
      AskSpec.parse({
        kind: 'ASK',
        specVersion: SPEC_VERSION,
        codeVersion,
        cpuThreads: 1,
        sampler,
        space,
        directions: directionsOf(objectives),
        population,
        seed,
        trials: trials
          .filter(({ outcome }) => outcome !== null)
          .map((one) => ({ generation: one.generation, params: one.paramsJson, values: one.valuesJson })),
        pending: trials.filter(({ outcome }) => outcome === null).map(({ paramsJson }) => paramsJson),
        generation,
        count,
      }),
    );
  },

  async finish(_services, _attempt, outcome) {
    const result = AskResult.safeParse(outcome.result);
    if (!result.success) throw new JobFailure('INTERNAL', `The trainer has proposed something else than trials: ${result.error.message}`);
    return () => result.data;
  },
};
