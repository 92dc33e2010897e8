import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { deleteJob } from '../src/jobs/delete.ts';
import { attempt, type JobEvent, job, jobEvent } from '../src/jobs/tables.ts';
import { dominates } from '../src/tuning/ranking.ts';
import { extendStudy } from '../src/tuning/start.ts';
import { findTrialOf, frontOf, ranked, studySettings, trainingsOf } from '../src/tuning/studies.ts';
import { sweepStudies } from '../src/tuning/sweep.ts';
import type { Trial } from '../src/tuning/tables.ts';
import { nobody } from './support/jobs.ts';
import { type Studied, withStudies, workThrough } from './support/tuning.ts';

const halving = { firstEpoch: 1, reduction: 2 };

async function started(studies: Studied, input: object = {}): Promise<string> {
  const { study } = await studies.start(input);
  return String(study?.id);
}

/** The trials of a study that nothing disturbs. */
const undisturbed = (input: object = {}, slots = 2) =>
  withStudies(async (studies) => {
    const id = await started(studies, input);
    await workThrough(studies, id);
    expect(studies.job(id).state).toBe('SUCCEEDED');
    return studies.list(id);
  }, slots);

describe('a study', () => {
  test('makes its generations, registers the best, and says so in events without a gap', () =>
    withStudies(async (studies) => {
      const id = await started(studies);
      await workThrough(studies, id);
      const trials = studies.trials(id);
      expect(trials.map(({ number, generation }) => [number, generation])).toEqual(
        Array.from({ length: 12 }, (_, n) => [n, Math.floor(n / 4)]),
      );
      expect(trials.every(({ outcome }) => outcome === 'COMPLETE' || outcome === 'WORST')).toBe(true);
      const front = frontOf(studySettings(studies.study(id)), trials);
      const job = studies.job(id);
      expect(job).toMatchObject({ state: 'SUCCEEDED', attemptNumber: 0, resultJson: { studyId: id, trials: 12 } });
      expect(job.resultJson?.front).toEqual(front.map(({ number }) => number));
      // Each of the best as a checkpoint and as what its conversion has made.
      expect(job.resultJson?.modelVersionIds).toHaveLength(2 * Math.min(2, front.length));
      expect(studies.trials(id).filter(({ finalJobId }) => finalJobId !== null).length).toBe(Math.min(2, front.length));
      expect(studies.slotsHeld()).toBe(0);
      expect(studies.checkpoints()).toEqual([]);
    }));

  test('trains equal hyperparameters once: copies have the result of the first', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { generations: 6, registerMax: 0 });
      await workThrough(studies, id);
      const trials = studies.trials(id);
      const copies = trials.filter(({ copyOf }) => copyOf !== null);
      expect(copies.length).toBeGreaterThan(0);
      for (const copy of copies) {
        const first = trials[copy.copyOf as number];
        expect(copy).toMatchObject({ jobId: null, outcome: first?.outcome, valuesJson: first?.valuesJson, hash: first?.hash });
      }
      const trained = studies.trainings().map(({ spec }) => JSON.stringify(spec.hyperparameters));
      expect(new Set(trained).size).toBe(trained.length);
      expect(trained.length).toBe(trials.length - copies.length);
      // The momentum has no effect with AdamW: it does not make two trials of one.
      expect(
        studies
          .trainings()
          .filter(({ spec }) => spec.hyperparameters.optimizer === 'ADAMW')
          .every(({ spec }) => spec.hyperparameters.momentum === 0.9),
      ).toBe(true);
    }));

  test('is estimated from the epochs of an earlier training and from the time that its process took to start', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { registerMax: 0 });
      await workThrough(studies, id);
      const { db } = studies.services();
      const [{ id: jobId, spec } = { id: '', spec: null }] = studies.trainings();
      const first = db.select().from(attempt).where(eq(attempt.jobId, jobId)).get();
      const [startedAt, pixels] = [Number(first?.startedAt), 16 * (spec?.hyperparameters.imageSize as number) ** 2];
      const events: [JobEvent['type'], number, object][] = [
        ['PHASE', 2000, { phase: 'weights' }],
        ['PHASE', 7000, { phase: 'training' }],
        ['EPOCH', 8000, { durationMs: pixels / 16 }],
        ['PHASE', 9000, { phase: 'training' }],
      ];
      for (const [n, [type, ms, payload]] of events.entries())
        db.insert(jobEvent)
          .values({ ...{ jobId, seq: 100 + n, attemptNumber: 1, at: startedAt + ms, type }, payloadJson: { ...payload } })
          .run();
      // A generation of four trials: four trainings of an epoch, two of the second and one of the rest. All on two slots.
      const space = [{ name: 'learningRate', low: 0.001, high: 0.1, log: true }];
      const { plan } = await studies.start({ space, fixed: { epochs: 4, imageSize: 64 }, halving, dryRun: true });
      const work = { trials: 12, generations: 3, epochs: 3 * (4 + 2 + 2) };
      expect(plan).toEqual({ ...work, estimatedMs: Math.round((work.epochs * 64 ** 2 + 3 * 7 * 7000) / 2), basedOn: 1 });
    }));

  test('begins with the trials that its user names, the defaults for the rest', () =>
    withStudies(async (studies) => {
      const space = [{ name: 'learningRate', low: 0.0001, high: 0.1, log: true }];
      const id = await started(studies, { space, begin: [{}, { learningRate: 0.02 }] });
      await workThrough(studies, id);
      expect(
        studies
          .trials(id)
          .slice(0, 2)
          .map(({ paramsJson }) => paramsJson),
      ).toEqual([{ learningRate: 0.001 }, { learningRate: 0.02 }]);
      expect(studies.trials(id).length).toBe(12);
    }));

  test('begins with the front of an earlier study, as far as it is searched here, behind what its user names', () =>
    withStudies(async (studies) => {
      const rate = { name: 'learningRate', low: 0.0001, high: 0.1, log: true };
      const earlier = await started(studies, { space: [rate, { name: 'weightDecay', low: 0, high: 0.1 }] });
      await expect(started(studies, { space: [rate], beginStudyId: earlier })).rejects.toThrow('None of its trials has a result yet');
      await workThrough(studies, earlier);
      const front = frontOf(studySettings(studies.study(earlier)), studies.trials(earlier));
      const best = front.map(({ paramsJson }) => ({ learningRate: paramsJson.learningRate }));
      const id = await started(studies, { space: [rate], begin: [{}], beginStudyId: earlier });
      const begun = studies.trials(id).map(({ paramsJson }) => paramsJson);
      expect(begun.slice(0, 1 + best.length)).toEqual([{ learningRate: 0.001 }, ...best].slice(0, 4));
      const narrow = { space: [{ ...rate, high: 0.000101 }], beginStudyId: earlier };
      await expect(started(studies, narrow)).rejects.toThrow(/learningRate is .* not in the space/);
      await expect(started(studies, { beginStudyId: 'nothing' })).rejects.toThrow('study');
    }));

  test('has for each trial the trainings of its rungs, each of which continues the one before', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { halving });
      await workThrough(studies, id);
      const { db } = studies.services();
      const chains = studies.trials(id).map((one) => trainingsOf(db, one).map((child) => child.resultJson?.epochs));
      expect(Math.max(...chains.map((epochs) => epochs.length))).toBeGreaterThan(1);
      for (const [n, epochs] of chains.entries()) {
        const { copyOf } = studies.trials(id)[n] as Trial;
        expect(epochs.length > 0).toBe(copyOf === null);
        expect(epochs).toEqual(epochs.toSorted((a, b) => Number(a) - Number(b)));
        expect(epochs[0] ?? halving.firstEpoch).toBe(halving.firstEpoch);
      }
      for (const one of studies.trials(id)) for (const child of trainingsOf(db, one)) expect(findTrialOf(db, child)).toEqual(one);
    }));

  test('trains a value that was computed back from its logarithm only once', () =>
    withStudies(async (studies) => {
      const space = [{ name: 'learningRate', low: 0.0001, high: 0.1, log: true }];
      const back = Math.exp(Math.log(0.02));
      expect(back).not.toBe(0.02);
      const id = await started(studies, { space, begin: [{ learningRate: 0.02 }, { learningRate: back }] });
      await workThrough(studies, id);
      expect(studies.trials(id)[1]).toMatchObject({ copyOf: 0, jobId: null, outcome: 'COMPLETE' });
    }));

  test('that is extended continues behind its last trial, as one that was longer from the start', async () => {
    const longer = await undisturbed({ generations: 4, registerMax: 0 });
    await withStudies(async (studies) => {
      const id = await started(studies, { generations: 3, registerMax: 0 });
      await workThrough(studies, id);
      const before = studies.job(id);
      for (const generations of [0, -1, -(2 ** 31)]) {
        expect(() => extendStudy(studies.services(), nobody, id, generations)).toThrow('is too small: must be at least 1');
      }
      expect([studies.job(id).id, studies.study(id).trials]).toEqual([before.id, 12]);
      extendStudy(studies.services(), nobody, id, 1);
      expect(studies.job(id).id).not.toBe(before.id);
      expect(studies.job(id).state).toBe('RUNNING');
      await workThrough(studies, id);
      expect(studies.job(id).state).toBe('SUCCEEDED');
      expect(studies.list(id)).toEqual(longer);
    });
  });

  test('ends with the generation that reaches its target, and continues from there where it is extended', async () => {
    const longer = await undisturbed({ generations: 3, registerMax: 0 });
    const reached = Math.max(...longer.slice(0, 4).map(({ valuesJson }) => valuesJson?.[0] ?? 0));
    await withStudies(async (studies) => {
      const id = await started(studies, { generations: 3, registerMax: 0, target: reached });
      await workThrough(studies, id);
      expect(studies.job(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { trials: 4 } });
      expect(studies.study(id).trials).toBe(4);
      expect(studies.list(id)).toEqual(longer.slice(0, 4));
      extendStudy(studies.services(), nobody, id, 2);
      await workThrough(studies, id);
      expect(studies.list(id)).toEqual(longer);
    });
  });

  test('of which the hours are over ends with its generation, and registers the best', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { hoursMax: 2 });
      const { db } = studies.services();
      const started2hAgo = Date.now() - 2 * 3_600_000;
      await workThrough(studies, id, (one) => {
        if (one.kind === 'TRAIN')
          db.update(job)
            .set({ createdAt: started2hAgo })
            .where(eq(job.id, studies.job(id).id))
            .run();
        return false;
      });
      expect(studies.job(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { trials: 4 } });
      expect(studies.job(id).resultJson?.modelVersionIds).not.toEqual([]);
    }));

  test('is cancelled with its trainings, and its retry continues from the trials that had ended', async () => {
    const whole = await undisturbed();
    await withStudies(async (studies) => {
      const id = await started(studies);
      let ended = 0;
      await workThrough(studies, id, (one) => {
        if (one.kind === 'TRAIN') ended += 1;
        if (ended !== 6) return false;
        ended += 1;
        studies.cancel(id);
        return true;
      });
      expect(studies.job(id).state).toBe('CANCELLED');
      const before = studies.list(id).filter(({ outcome }) => outcome !== null);
      expect(before.length).toBeGreaterThan(0);
      // For a week its retry continues from the checkpoints.
      const kept = studies.checkpoints();
      expect(kept.length).toBeGreaterThan(0);
      sweepStudies(studies.services(), Date.now() - 7 * 86_400_000);
      expect(studies.checkpoints()).toEqual(kept);
      sweepStudies(studies.services(), Date.now() + 86_400_000);
      expect(studies.checkpoints()).toEqual([]);
      studies.retry(id);
      await workThrough(studies, id);
      expect(studies.job(id).state).toBe('SUCCEEDED');
      expect(studies.list(id)).toEqual(whole);
    });
  });

  test('fails where a trial cannot run for another reason than its hyperparameters, and says what to do', () =>
    withStudies(async (studies) => {
      const id = await started(studies);
      const seen = { killed: '' };
      await workThrough(studies, id, (one) => {
        if (one.kind !== 'TRAIN' || (seen.killed !== '' && seen.killed !== one.id)) return false;
        seen.killed = one.id;
        studies.break(one, 'CRASHED');
        return true;
      });
      expect(studies.job(id)).toMatchObject({ state: 'FAILED', failureCode: 'TRIAL_FAILED' });
      expect(studies.job(id).failureMessage).toMatch(/^Trial 0 failed with POISON: 3 attempts crashed.*then retry this job/);
      studies.retry(id);
      await workThrough(studies, id);
      expect(studies.job(id).state).toBe('SUCCEEDED');
    }));

  test('that is paused starts nothing, also of what it makes meanwhile, until it is resumed', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { registerMax: 0 });
      studies.claim();
      for (const one of studies.attempts()) studies.finish(one);
      studies.claim();
      const running = studies.attempts();
      expect(running.map(({ kind }) => kind)).toEqual(['TRAIN', 'TRAIN']);
      studies.pause(id, true);
      expect(studies.attempts().every(({ held }) => held)).toBe(true);
      for (const one of running) studies.break(one, 'SUSPENDED');
      studies.claim();
      expect(studies.attempts()).toEqual([]);
      expect(studies.job(id)).toMatchObject({ state: 'RUNNING', held: true });
      studies.pause(id, false);
      await workThrough(studies, id);
      expect(studies.list(id)).toEqual(await undisturbed({ registerMax: 0 }));
    }));
});

describe('a study with latency as an objective', () => {
  const input = { objectives: ['TOP1', 'LATENCY'] };

  test('measures it once, alone on the machine, and each trial has the latency of its image size', () =>
    withStudies(async (studies) => {
      const other = await started(studies);
      const id = await started(studies, input);
      const seen = new Set<string>();
      await workThrough(studies, id, ({ id: jobId, kind, specJson }, running) => {
        if (running.some((one) => one.kind === 'MEASURE')) expect(running.length).toBe(1);
        if (kind !== 'MEASURE') return false;
        seen.add(jobId);
        expect(specJson).toEqual({ studyId: id });
        expect(studies.trials(id)).toEqual([]);
        return false;
      });
      expect(seen.size).toBe(1);
      expect(studies.study(id).latenciesJson).toEqual({ 32: 1.5, 64: 6 });
      const trials = studies.trials(id);
      expect(trials.length).toBe(12);
      for (const { valuesJson, paramsJson } of trials) if (valuesJson) expect(valuesJson[1]).toBe(paramsJson.imageSize === 32 ? 1.5 : 6);
      extendStudy(studies.services(), nobody, id, 1);
      await workThrough(studies, id, ({ kind }) => {
        expect(kind).not.toBe('MEASURE');
        return false;
      });
      await workThrough(studies, other);
      expect(studies.job(other).state).toBe('SUCCEEDED');
    }));

  test('fails where it cannot be measured, and its retry measures again', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { ...input, begin: [{ imageSize: 64 }] });
      studies.claim();
      for (const one of studies.attempts()) studies.end(one, { state: 'FAILED', failure: { code: 'EXPORT_FAILED', message: 'Invented.' } });
      const { state, failureCode, failureMessage } = studies.job(id);
      expect([state, failureCode, failureMessage]).toEqual([
        'FAILED',
        'MEASURE_FAILED',
        'The latency could not be measured: Invented. Retry this job.',
      ]);
      studies.retry(id);
      await workThrough(studies, id);
      expect(studies.job(id).state).toBe('SUCCEEDED');
      expect(studies.trials(id)[0]).toMatchObject({ paramsJson: { imageSize: 64 } });
    }));
});

describe('halving', () => {
  test('stops the weak ones of a generation at each rung, and never continues one of them', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { halving, population: 8, generations: 2 });
      await workThrough(studies, id);
      const trials = studies.trials(id);
      const stopped = trials.filter(({ outcome, copyOf }) => outcome === 'STOPPED' && copyOf === null);
      expect(new Set(stopped.map(({ epochs }) => epochs)).size).toBeGreaterThan(1);
      const { objectives } = studySettings(studies.study(id));
      expect(objectives).toEqual(['TOP1', 'MACS']);
      const searches = studies.trainings().filter(({ spec }) => spec.modelId === null);
      for (const one of stopped) {
        expect([1, 2, 4, 8]).toContain(one.epochs);
        const rungs = searches.filter(({ spec }) => JSON.stringify(spec.hyperparameters) === hyperparametersOf(searches, one.jobId));
        expect(rungs.map(({ spec }) => spec.stopAfterEpoch)).toEqual([1, 2, 4, 8].filter((rung) => rung <= one.epochs));
      }
      // Each next rung continues from the job of the one before.
      for (const { spec } of searches.filter((one) => one.spec.resumeOfJobId !== null)) {
        const before = searches.find((one) => one.id === spec.resumeOfJobId);
        expect(before?.spec).toMatchObject({ hyperparameters: spec.hyperparameters });
        expect(before?.spec.stopAfterEpoch).toBe(spec.stopAfterEpoch === null ? 8 : spec.stopAfterEpoch / 2);
      }
      expect(trials.filter(({ outcome }) => outcome === 'COMPLETE').every(({ epochs }) => epochs === 9)).toBe(true);
      // Whose checkpoint a retry of the study may need.
      const [earlier] = searches.flatMap(({ spec }) => spec.resumeOfJobId ?? []);
      await expect(deleteJob(studies.services(), nobody, String(earlier))).rejects.toThrow('It belongs to a study');
    }));
});

const hyperparametersOf = (searches: ReturnType<Studied['trainings']>, jobId: string | null): string =>
  JSON.stringify(searches.find(({ id }) => id === jobId)?.spec.hyperparameters);

/** Trainings of the search beyond the rung at which halving has stopped their trial. Registering one of the front is no search. */
function continuedLosers(studies: Studied, id: string): string[] {
  const searches = studies.trainings().filter(({ spec }) => spec.modelId === null);
  const stopped = studies.trials(id).filter(({ outcome, copyOf }) => outcome === 'STOPPED' && copyOf === null);
  return stopped.flatMap(({ number, epochs, jobId }) =>
    searches
      .filter(({ spec }) => JSON.stringify(spec.hyperparameters) === hyperparametersOf(searches, jobId))
      .filter(({ spec }) => (spec.stopAfterEpoch ?? spec.hyperparameters.epochs) > epochs)
      .map(({ spec }) => `trial ${number}, stopped after epoch ${epochs}, was trained to ${spec.stopAfterEpoch ?? 'its end'}`),
  );
}

describe('a study of another sampler', () => {
  const grid = {
    sampler: 'GRID',
    space: [
      { name: 'learningRate', choices: [0.001, 0.01] },
      { name: 'optimizer', choices: ['ADAMW', 'SGD'] },
      { name: 'imageSize', choices: [32, 64] },
    ],
    generations: null,
    registerMax: 1,
  };

  test.each([
    ['within a generation', 3, 11],
    ['at the end of one', 4, 11],
    ['with the last trial', 4, 8],
  ])('GRID ends with the last point of its grid, %s, and has no more to do where it is extended', (_when, population, trials) =>
    withStudies(async (studies) => {
      const id = await started(studies, { ...grid, population, trials });
      for (const time of ['first', 'extended']) {
        await workThrough(studies, id);
        expect(studies.job(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { trials: 8 } });
        expect(studies.job(id).resultJson?.modelVersionIds).not.toEqual([]);
        expect(studies.study(id).trials).toBe(8);
        const points = studies.trials(id).map(({ paramsJson }) => JSON.stringify(paramsJson));
        expect([points.length, new Set(points).size]).toEqual([8, 8]);
        if (time === 'first') extendStudy(studies.services(), nobody, id, 1);
      }
    }),
  );

  test('TPE makes all its trials, and registers the best one of its objective', () =>
    withStudies(async (studies) => {
      const id = await started(studies, { sampler: 'TPE', objectives: ['TOP1'], halving });
      await workThrough(studies, id);
      const trials = studies.trials(id);
      expect(studies.job(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { trials: 12 } });
      const best = Math.max(...trials.map(({ valuesJson }) => valuesJson?.[0] ?? 0));
      const registered = trials.filter(({ finalJobId }) => finalJobId !== null);
      expect(registered.map(({ valuesJson }) => valuesJson)).toEqual([[best]]);
    }));
});

describe('whatever happens', () => {
  test.each([
    ['without halving', { generations: 2 }],
    ['with halving', { halving, generations: 2 }],
    [
      'that begins with trials of its user, and measures latency',
      { halving, generations: 2, begin: [{ imageSize: 32 }, { imageSize: 64 }, { imageSize: 32 }], objectives: ['TOP1', 'LATENCY'] },
    ],
  ])(
    'a study comes to the same trials, and runs none twice: %s',
    async (_how, input) => {
      const wanted = await undisturbed(input, 1);
      const event = fc.constantFrom('finish', 'finish', 'finish', 'crash', 'lose', 'pause', 'resume', 'cancel', 'restart');
      const script = fc.array(fc.tuple(event, fc.nat(3)), { maxLength: 60 });
      await fc.assert(
        fc.asyncProperty(script, fc.integer({ min: 1, max: 4 }), (events, slots) =>
          withStudies(async (studies) => {
            const id = await started(studies, input);
            for (const [what, which] of events) {
              if (studies.isOver(id) && studies.job(id).state !== 'SUCCEEDED') studies.retry(id);
              studies.claim();
              const running = studies.attempts();
              const one = running[which % Math.max(1, running.length)];
              if (what === 'restart') studies.restart();
              else if (studies.isOver(id)) continue;
              else if (what === 'pause' && studies.job(id).state === 'CANCELLING')
                expect(() => studies.pause(id, true)).toThrow('The study is being cancelled.');
              else if (what === 'pause' || what === 'resume') studies.pause(id, what === 'pause');
              else if (what === 'cancel') studies.cancel(id);
              else if (one && what === 'finish') studies.finish(one);
              else if (one) studies.break(one, what === 'crash' ? 'CRASHED' : 'SUSPENDED');
            }
            if (!studies.isOver(id)) studies.pause(id, false);
            for (let n = 0; n < 20 && studies.job(id).state !== 'SUCCEEDED'; n += 1) {
              if (studies.isOver(id)) studies.retry(id);
              await workThrough(studies, id, undefined, (running) => running.at(-1));
            }
            expect(studies.job(id).state).toBe('SUCCEEDED');
            expect(studies.list(id)).toEqual(wanted);
            const front = frontOf(studySettings(studies.study(id)), studies.trials(id));
            const all = studies.trials(id).map(ranked);
            for (const best of front) expect(all.some((other) => dominates(other, best, ['MAXIMIZE', 'MINIMIZE']))).toBe(false);
            // No training has succeeded twice up to the same epoch.
            const succeeded = studies
              .trainings()
              .filter(({ state }) => state === 'SUCCEEDED')
              .map(({ spec }) => JSON.stringify([spec.hyperparameters, spec.stopAfterEpoch, spec.modelId]));
            expect(new Set(succeeded).size).toBe(succeeded.length);
            expect(continuedLosers(studies, id)).toEqual([]);
            expect(studies.slotsHeld()).toBe(0);
          }, slots),
        ),
        { numRuns: 8 },
      );
    },
    300_000,
  );
});
