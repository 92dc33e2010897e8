import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { createBus } from '../src/bus.ts';
import { announceJob } from '../src/jobs/enqueue.ts';
import { requireJob } from '../src/jobs/jobs.ts';
import type { JobServices } from '../src/jobs/kinds.ts';
import { modelVersion } from '../src/models/tables.ts';
import { removeJobs } from '../src/retention/jobs.ts';
import { deleteStudy } from '../src/tuning/delete.ts';
import { readStudyEvents, type StudyEventPayloads, watchStudyEvents } from '../src/tuning/events.ts';
import { extendStudy, pauseStudy } from '../src/tuning/start.ts';
import { frontOf, studySettings, trialFailure } from '../src/tuning/studies.ts';
import { countDueStudyEvents, removeStudyEvents } from '../src/tuning/sweep.ts';
import type { StudyEvent } from '../src/tuning/tables.ts';
import { nobody } from './support/jobs.ts';
import { type Studied, withStudies, workThrough } from './support/tuning.ts';

const halving = { firstEpoch: 1, reduction: 2 };

const begun = async (studies: Studied, input: object = {}): Promise<string> => String((await studies.start(input)).study?.id);

const eventsOf = (studies: Studied, id: string, after = 0): StudyEvent[] => readStudyEvents(studies.services().db, id, after, 10_000);

const payloads = <T extends StudyEvent['type']>(events: StudyEvent[], type: T): StudyEventPayloads[T][] =>
  events.filter((one) => one.type === type).map(({ payloadJson }) => payloadJson as unknown as StudyEventPayloads[T]);

/** What a reader of all events knows is what the rows say. */
function expectTrue(studies: Studied, id: string): StudyEvent[] {
  const events = eventsOf(studies, id);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, n) => n + 1));
  expect(studies.study(id).nextSeq).toBe(events.length + 1);
  const { state, id: jobId, held } = studies.job(id);
  expect(payloads(events, 'STATE').at(-1)).toMatchObject({ state, jobId, paused: held });
  const trials = studies.trials(id);
  const ended = payloads(events, 'TRIAL_ENDED').sort((a, b) => a.number - b.number);
  const wanted = trials.filter(({ outcome }) => outcome !== null);
  expect(ended).toEqual(
    wanted.map(({ number, generation, paramsJson: params, outcome, valuesJson: values, epochs, copyOf }) => ({
      ...{ number, generation, params, outcome, values, epochs, copyOf },
      failure: outcome === 'WORST' ? expect.objectContaining({ code: 'DIVERGED' }) : null,
    })),
  );
  const front = frontOf(studySettings(studies.study(id)), trials).map(({ number }) => number);
  expect(payloads(events, 'FRONT_CHANGED').at(-1)?.front ?? []).toEqual(front);
  return events;
}

test('a study is answered with the seq that its events have come to', () =>
  withStudies(async (studies) => {
    const { study: started } = await studies.start({});
    expect(started?.nextSeq).toBe(eventsOf(studies, String(started?.id)).length + 1);
  }));

test('the events of a study tell each trial from its queue to its end, each rung, generation and front, once and in order', () =>
  withStudies(async (studies) => {
    const id = await begun(studies, { halving });
    await workThrough(studies, id);
    const events = expectTrue(studies, id);
    expect(events[0]).toMatchObject({ type: 'STATE', payloadJson: { state: 'RUNNING', paused: false } });
    expect(events.at(-1)).toMatchObject({ type: 'STATE', payloadJson: { state: 'SUCCEEDED' } });
    expect(payloads(events, 'GENERATION_ENDED')).toEqual([0, 1, 2].map((generation) => ({ generation, trials: 4 * (generation + 1) })));
    for (const { number, copyOf, finalJobId } of studies.trials(id)) {
      const of = events.filter(({ payloadJson }) => payloadJson.number === number).map(({ type }) => type);
      if (copyOf !== null) {
        expect(of).toEqual(['TRIAL_ENDED']);
        continue;
      }
      const [first, second, ...rest] = of;
      expect([first, second]).toEqual(['TRIAL_ENQUEUED', 'TRIAL_STARTED']);
      const search = rest.slice(0, rest.indexOf('TRIAL_ENDED'));
      expect(search).toEqual(search.map((_, n) => ['RUNG_ENDED', 'PROMOTION', 'TRIAL_STARTED'][n % 3]));
      const registration = ['TRIAL_ENQUEUED', 'TRIAL_STARTED', 'REGISTRATION_ENDED', 'REGISTRATION_ENDED'];
      expect(rest.slice(search.length + 1)).toEqual(finalJobId === null ? [] : registration);
    }
    expect(payloads(events, 'PROMOTION').length).toBeGreaterThan(0);
    const registered = payloads(events, 'TRIAL_ENQUEUED').filter(({ registers }) => registers);
    expect(registered.length).toBe(studies.trials(id).filter(({ finalJobId }) => finalJobId !== null).length);
    const made = payloads(events, 'REGISTRATION_ENDED').map(({ state, jobId, modelVersionId }) => [state, jobId, modelVersionId]);
    const { db } = studies.services();
    expect(made).toEqual(
      made.map(([, jobId]) => [
        'SUCCEEDED',
        jobId,
        db
          .select()
          .from(modelVersion)
          .where(eq(modelVersion.jobId, String(jobId)))
          .get()?.id,
      ]),
    );
    expect(made.length).toBe(2 * registered.length);
  }));

test('the end of a WORST trial tells why: the failure of its training, nothing where that was cancelled', () =>
  withStudies(async (studies) => {
    const { db } = studies.services();
    const diverges = { learningRate: 0.1, optimizer: 'SGD', momentum: 0.9, imageSize: 32 };
    const begin = [diverges, diverges, { imageSize: 32 }];
    const id = await begun(studies, { begin, registerMax: 0, generations: 1 });
    await workThrough(studies, id, (one) => {
      if (one.id !== studies.trials(id)[2]?.jobId) return false;
      studies.end(one, { state: 'CANCELLED', failure: null });
      return true;
    });
    const ended = payloads(eventsOf(studies, id), 'TRIAL_ENDED');
    const failureOf = (number: number) => ended.find((one) => one.number === number)?.failure;
    const failure = { code: 'DIVERGED', message: 'The loss is not a finite number any more.' };
    expect(studies.trials(id).map(({ outcome, copyOf }) => [outcome, copyOf])).toMatchObject([
      ['WORST', null],
      ['WORST', 0],
      ['WORST', null],
      [expect.anything(), null],
    ]);
    expect([0, 1, 2].map(failureOf)).toEqual([failure, failure, null]);
    expect(studies.trials(id).map((one) => trialFailure(db, one))).toEqual([0, 1, 2, 3].map(failureOf));
  }));

test('they are numbered on through pause, crash, restart, cancel, retry and extension, each of which they tell', () =>
  withStudies(async (studies) => {
    const id = await begun(studies, { registerMax: 0 });
    let step = 0;
    await workThrough(studies, id, (one) => {
      if (one.kind !== 'TRAIN') return false;
      step += 1;
      if (step === 2) studies.break(one, 'CRASHED');
      else if (step === 3) studies.restart();
      else if (step === 4) {
        studies.pause(id, true);
        studies.break(one, 'SUSPENDED');
        studies.pause(id, false);
      } else if (step === 6) studies.cancel(id);
      else return false;
      expectTrue(studies, id);
      return true;
    });
    expect(studies.job(id).state).toBe('CANCELLED');
    const cancelled = expectTrue(studies, id).length;
    studies.retry(id);
    await workThrough(studies, id);
    extendStudy(studies.services(), nobody, id, 1);
    await workThrough(studies, id);
    const events = expectTrue(studies, id);
    const states = payloads(events, 'STATE');
    expect(states.map(({ state, paused }) => (paused ? 'PAUSED' : state))).toEqual([
      ...['RUNNING', 'PAUSED', 'RUNNING', 'CANCELLING', 'CANCELLED'],
      ...['RUNNING', 'SUCCEEDED', 'RUNNING', 'SUCCEEDED'],
    ]);
    expect(new Set(states.map(({ jobId }) => jobId)).size).toBe(3);
    expect(eventsOf(studies, id, cancelled)[0]).toMatchObject({ seq: cancelled + 1, type: 'STATE' });
    expect(Math.max(...payloads(events, 'TRIAL_STARTED').map(({ attempt }) => attempt))).toBeGreaterThan(1);
    expect(payloads(events, 'GENERATION_ENDED').map(({ trials }) => trials)).toEqual([4, 8, 12, 16]);
  }));

test('a reader gets what is behind its seq, then each as it comes, also from another job of the study, and what waited while it read nothing', () =>
  withStudies(async (studies) => {
    const id = await begun(studies, { registerMax: 0, generations: 1 });
    const services = { ...studies.services(), bus: createBus() };
    const events = watchStudyEvents(services, id, 0);
    const taken: number[] = [];
    const take = async (count: number) => {
      for (let n = 0; n < count; n += 1) taken.push((await events.next()).value?.seq as number);
    };
    await take(eventsOf(studies, id).length);
    const next = events.next();
    const { nextSeq } = pauseStudy(services, nobody, id, true);
    // Nothing changes, and there is no event.
    expect(pauseStudy(services, nobody, id, true).nextSeq).toBe(nextSeq);
    expect(nextSeq).toBe(eventsOf(studies, id).length + 1);
    expect((await next).value).toMatchObject({ type: 'STATE', payloadJson: { paused: true } });
    taken.push(taken.length + 1);
    pauseStudy(services, nobody, id, false);
    // Nobody wakes the reader of all this, and it reads nothing meanwhile.
    await workThrough(studies, id);
    const { id: jobId } = studies.job(id);
    announceJob(services.bus, requireJob(services.db, jobId));
    await take(eventsOf(studies, id).length - taken.length);
    const extended = events.next();
    extendStudy(services, nobody, id, 1);
    const told = (await extended).value;
    expect(told).toMatchObject({ type: 'EXTENDED', payloadJson: { generations: 1, trialsWanted: 8 } });
    const [state] = eventsOf(studies, id, told?.seq);
    expect(state).toMatchObject({ type: 'STATE', payloadJson: { state: 'RUNNING' } });
    expect(state?.payloadJson.jobId).not.toBe(jobId);
    // One that runs has no other event of that.
    const { nextSeq: seq } = extendStudy(services, nobody, id, 2);
    expect(eventsOf(studies, id, seq - 2)).toMatchObject([{ type: 'EXTENDED', payloadJson: { generations: 2, trialsWanted: 16 } }]);
    expect([...taken, told?.seq]).toEqual(Array.from({ length: taken.length + 1 }, (_, n) => n + 1));
    await events.return();
    expect(() => watchStudyEvents(services, 'nothing', 0)).toThrow('There is no such study');
  }));

test('they are removed when their study has ended for long enough, and an extension then numbers on', () =>
  withStudies(async (studies) => {
    const id = await begun(studies, { registerMax: 0 });
    const { db } = studies.services();
    const later = Date.now() + 86_400_000;
    expect(countDueStudyEvents(db, later)).toBe(0);
    await workThrough(studies, id);
    const events = eventsOf(studies, id);
    expect([countDueStudyEvents(db, 0), countDueStudyEvents(db, later)]).toEqual([0, events.length]);
    await removeStudyEvents(db, later);
    expect(eventsOf(studies, id)).toEqual([]);
    extendStudy(studies.services(), nobody, id, 1);
    expect(eventsOf(studies, id)[0]?.seq).toBe(events.length + 1);
    await workThrough(studies, id);
    // Fronts and generations that readers know are no events again.
    const further = eventsOf(studies, id);
    expect(payloads(further, 'GENERATION_ENDED').map(({ generation }) => generation)).toEqual([3]);
    const fronts = [...payloads(events, 'FRONT_CHANGED'), ...payloads(further, 'FRONT_CHANGED')].map(({ front }) => front.join());
    for (const [n, front] of fronts.entries()) expect(front).not.toBe(fronts[n - 1]);
  }));

const deletions = {
  deleteStudy: (services: JobServices, id: string) => deleteStudy(services, nobody, id),
  'its age': (services: JobServices) => removeJobs(services, Date.now() + 1000),
};

test.each(Object.entries(deletions))(
  'a reader who waits, one who has read nothing yet, and one in the middle come to an end when the study is deleted by %s',
  (_how, remove) =>
    withStudies(async (studies) => {
      const id = await begun(studies, { registerMax: 0 });
      await workThrough(studies, id);
      const services = { ...studies.services(), bus: createBus() };
      const last = eventsOf(studies, id).length;
      const readers = [last, 0, 0].map((after) => watchStudyEvents(services, id, after));
      const waiting = readers[0]?.next();
      expect((await readers[2]?.next())?.value).toMatchObject({ seq: 1 });
      await remove(services, id);
      expect(await waiting).toMatchObject({ done: true });
      for (const events of readers) {
        const rest: number[] = [];
        for await (const { seq } of events) rest.push(seq);
        // What was read from the database before the deletion may still come.
        expect(rest).toEqual(rest.map((_, n) => n + 2));
      }
      expect(eventsOf(studies, id)).toEqual([]);
      expect(() => watchStudyEvents(services, id, 0)).toThrow('There is no such study');
    }),
);
