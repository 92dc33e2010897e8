import { describe, expect, test } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { InputError } from '../src/errors.ts';
import { announceMove } from '../src/jobs/attempt.ts';
import { announceJob, enqueue, type NewJob } from '../src/jobs/enqueue.ts';
import { setHeld } from '../src/jobs/hold.ts';
import type { CoordinatorEnd, JobKind } from '../src/jobs/kinds.ts';
import { cancelJob, endAttempt } from '../src/jobs/moves.ts';
import { setJobPriority } from '../src/jobs/priority.ts';
import { claimNext, prepareSlots } from '../src/jobs/queue.ts';
import { retryJob } from '../src/jobs/retry.ts';
import type { Job } from '../src/jobs/tables.ts';
import { watchJobs } from '../src/jobs/watch.ts';
import type { Step } from './support/child.ts';
import { endings, isState, type Jobs, nobody, touch, until, withJobs } from './support/jobs.ts';
import { scripted } from './support/kinds.ts';

const specOf = (folder: string, steps: Step[]): Pick<NewJob, 'spec'> => ({ spec: { folder, steps } });

const childrenOf = ({ db }: Jobs, { id }: Job): Job[] =>
  db.$client
    .prepare('SELECT id FROM job WHERE parentId = ? ORDER BY rowid')
    .pluck()
    .all(id)
    .map((child) => jobOf(db, String(child)));

const jobOf = (db: Jobs['db'], id: string): Job => db.$client.prepare('SELECT * FROM job WHERE id = ?').get(id) as Job;

describe('a job that leaves its work to a child', () => {
  /** What it makes is worked on by a CONVERT that does `steps`. */
  const withChild = (steps: Step[], use: (jobs: Jobs) => Promise<void>) => {
    const parent: JobKind = {
      ...scripted,
      finish:
        async ({ config }, { job }, outcome) =>
        (tx) => {
          enqueue(tx, nobody, { kind: 'CONVERT', ...specOf(config.dataDir, steps), priority: job.priority, parentId: job.id });
          return outcome.result;
        },
    };
    return withJobs(use, { kinds: { TRAIN: parent } });
  };

  test('has succeeded when it is queued: whoever follows the jobs hears of both', () =>
    withChild(['hello', 'ok'], async (jobs) => {
      await jobs.start();
      const heard = (async () => {
        for await (const job of watchJobs(jobs, () => true)) if (job.kind === 'CONVERT') return job.id;
        return undefined;
      })();
      const { id } = jobs.submit({ kind: 'TRAIN', priority: 7 });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      const [child] = childrenOf(jobs, jobs.job(id));
      expect(child).toMatchObject({ kind: 'CONVERT', parentId: id, priority: 7 });
      expect(await heard).toBe(child?.id);
      expect((await jobs.ended(String(child?.id))).state).toBe('SUCCEEDED');
    }));

  test('has the place in the queue that its parent is given later', () =>
    withChild(['hello', 'ok'], async (jobs) => {
      const parent = jobs.submit({ kind: 'TRAIN' }).id;
      const child = inTransaction(jobs.db, (tx) =>
        enqueue(tx, nobody, { kind: 'CONVERT', ...specOf(jobs.config.dataDir, []), parentId: parent }),
      );
      setJobPriority(jobs, nobody, parent, { priority: 5 });
      expect([jobs.job(parent).priority, jobs.job(child.id).priority]).toEqual([5, 5]);
      expect(() => setJobPriority(jobs, nobody, parent, { priority: 101 })).toThrow(InputError);
    }));

  test('stays succeeded when it fails, and what failed can be tried again under the same parent', () =>
    withChild(['hello', { exit: 65 }], async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ kind: 'TRAIN' });
      await jobs.ended(id);
      const [child] = childrenOf(jobs, jobs.job(id));
      expect(await jobs.ended(String(child?.id))).toMatchObject({ state: 'FAILED', failureCode: 'DATA_INVALID' });
      const again = retryJob(jobs, jobs.kinds, nobody, String(child?.id));
      expect(again).toMatchObject({ parentId: id, retryOfId: child?.id });
      expect((await jobs.ended(again.id)).state).toBe('FAILED');
      expect(jobs.job(id).state).toBe('SUCCEEDED');
    }));

  test('leaves nothing to do when it was cancelled too late to be stopped', () =>
    withChild(['hello', 'ok'], async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ kind: 'TRAIN', steps: ['hello', { wait: 'go' }, 'ok'], ignores: ['commands'] });
      await until(() => jobs.attempts(id)[0]?.state === 'RUNNING');
      const move = cancelJob(jobs.db, jobs.kinds, nobody, id);
      if (move) announceMove(jobs, move);
      touch(jobs, 'go');
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(childrenOf(jobs, jobs.job(id))).toMatchObject([{ state: 'CANCELLED' }]);
    }));

  test('is not failed by a full queue', () =>
    withChild(['hello', 'ok'], async (jobs) => {
      prepareSlots(jobs.db, 1);
      const { id } = jobs.submit({ kind: 'TRAIN' });
      claimNext(jobs.db, jobs.kinds);
      inTransaction(jobs.db, (tx) => {
        for (let n = 0; n < 1000; n += 1) enqueue(tx, nobody, { kind: 'EVALUATE', spec: {} });
      });
      expect(() => jobs.submit()).toThrow('1000 jobs in the queue');
      const attempt = { job: jobs.job(id), attemptNumber: 1, workDir: '', resumeFrom: null };
      const register = await jobs.kinds.TRAIN.finish(jobs, attempt, { result: {}, artifacts: [], gates: [] });
      endAttempt(jobs.db, jobs.kinds, id, 1, { state: 'SUCCEEDED', failure: null }, register);
      expect([jobs.job(id).state, childrenOf(jobs, jobs.job(id)).length]).toEqual(['SUCCEEDED', 1]);
    }));
});

describe('a coordinator', () => {
  /** It has `rounds` rounds of two children that do `steps`, and ends with the states of all of them. */
  function coordinator(rounds: number, steps: Step[], end: (states: string[]) => CoordinatorEnd | null = () => null): JobKind {
    return {
      ...scripted,
      onChildEnded(tx, parent) {
        const { folder } = parent.specJson as { folder: string };
        const states = tx
          .all<{ state: string }>(`SELECT state FROM job WHERE parentId = '${parent.id}' ORDER BY rowid`)
          .map((r) => r.state);
        const ended = end(states);
        if (ended || states.some((state) => state !== 'SUCCEEDED')) return ended;
        if (states.length === 2 * rounds) return { state: 'SUCCEEDED', result: { states } };
        for (let n = 0; n < 2; n += 1) enqueue(tx, nobody, { kind: 'TRAIN', ...specOf(folder, steps), parentId: parent.id });
        return null;
      },
    };
  }

  /** The EVALUATE jobs coordinate here, until there is a kind that does. */
  const withCoordinator = (kind: JobKind, use: (jobs: Jobs, begin: (steps: Step[]) => Job) => Promise<void>) =>
    withJobs(
      (jobs) =>
        use(jobs, (steps) => {
          const begun = inTransaction(jobs.db, (tx) => {
            const { id } = enqueue(tx, nobody, { kind: 'EVALUATE', ...specOf(jobs.folder, []), coordinates: true });
            for (let n = 0; n < 2; n += 1) enqueue(tx, nobody, { kind: 'TRAIN', ...specOf(jobs.folder, steps), parentId: id });
            return jobs.job(id);
          });
          announceJob(jobs.bus, begun);
          return begun;
        }),
      { kinds: { EVALUATE: kind } },
    );

  const cancel = (jobs: Jobs, id: string) => {
    const move = cancelJob(jobs.db, jobs.kinds, nobody, id);
    if (move) announceMove(jobs, move);
  };

  test('ends when its children have, those included that it has made meanwhile', () =>
    withCoordinator(coordinator(3, ['hello', 'ok']), async (jobs, begin) => {
      await jobs.start();
      const { id, state } = begin(['hello', 'ok']);
      expect(state).toBe('RUNNING');
      expect(await jobs.ended(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { states: Array(6).fill('SUCCEEDED') } });
      expect(jobs.events(id).map((event) => event.payloadJson.state)).toEqual(['RUNNING', 'SUCCEEDED']);
      expect(jobs.attempts(id)).toEqual([]);
    }));

  test('takes nobody’s place, and goes on after the server has died', () =>
    withCoordinator(coordinator(1, []), async (jobs, begin) => {
      const coordinators = [begin([]), begin([]), begin([])];
      for (const one of coordinators) for (const child of childrenOf(jobs, one)) cancelJob(jobs.db, jobs.kinds, nobody, child.id);
      const slotless = jobs.submit({ slots: 0 });
      const alone = jobs.submit({ slots: -1 });
      await jobs.start();
      expect((await jobs.ended(slotless.id)).state).toBe('SUCCEEDED');
      expect((await jobs.ended(alone.id)).state).toBe('SUCCEEDED');
      for (const { id } of coordinators) expect(jobs.job(id).state).toBe('RUNNING');
    }));

  test('is cancelled with its children: those that wait at once, and itself when the last attempt has stopped', () =>
    withCoordinator(coordinator(1, []), async (jobs, begin) => {
      const { id } = begin(['hello', { wait: 'go' }, 'ok']);
      const waiting = inTransaction(jobs.db, (tx) =>
        enqueue(tx, nobody, { kind: 'TRAIN', ...specOf(jobs.folder, []), parentId: id, priority: -1 }),
      );
      await jobs.start();
      const running = childrenOf(jobs, jobs.job(id)).filter((child) => child.id !== waiting.id);
      for (const child of running) await jobs.event(child.id, isState('RUNNING'));
      await until(() => running.every((child) => jobs.attempts(child.id)[0]?.state === 'RUNNING'));
      cancel(jobs, id);
      expect(jobs.job(waiting.id).state).toBe('CANCELLED');
      expect([id, ...running.map((child) => child.id)].map((one) => jobs.job(one).state)).toEqual(Array(3).fill('CANCELLING'));
      touch(jobs, 'go');
      expect((await jobs.ended(id)).state).toBe('CANCELLED');
      expect(running.map((child) => jobs.job(child.id).state).filter((state) => state === 'CANCELLING')).toEqual([]);
    }));

  test('is cancelled with what a child makes for it that succeeds before it can stop', () => {
    const child: JobKind = {
      ...scripted,
      finish:
        async ({ config }, { job }, outcome) =>
        (tx) => {
          enqueue(tx, nobody, { kind: 'CONVERT', ...specOf(config.dataDir, ['hello', { wait: 'never' }, 'ok']), parentId: job.parentId });
          return outcome.result;
        },
    };
    return withJobs(
      async (jobs) => {
        const spec = specOf(jobs.folder, ['hello', { wait: 'go' }, 'ok']).spec as object;
        const parent = inTransaction(jobs.db, (tx) => {
          const { id } = enqueue(tx, nobody, { kind: 'EVALUATE', ...specOf(jobs.folder, []), coordinates: true });
          enqueue(tx, nobody, { kind: 'TRAIN', spec: { ...spec, ignores: ['commands'] }, parentId: id });
          return jobs.job(id);
        });
        announceJob(jobs.bus, parent);
        await jobs.start();
        const [first] = childrenOf(jobs, parent);
        await until(() => jobs.attempts(String(first?.id))[0]?.state === 'RUNNING');
        cancel(jobs, parent.id);
        touch(jobs, 'go');
        expect((await jobs.ended(parent.id)).state).toBe('CANCELLED');
        expect(childrenOf(jobs, parent).map(({ kind, state }) => [kind, state])).toEqual([
          ['TRAIN', 'SUCCEEDED'],
          ['CONVERT', 'CANCELLED'],
        ]);
      },
      { kinds: { EVALUATE: coordinator(1, []), TRAIN: child } },
    );
  });

  test('without children left is cancelled at once', () =>
    withCoordinator(coordinator(1, []), async (jobs, begin) => {
      const { id } = begin([]);
      for (const child of childrenOf(jobs, jobs.job(id))) cancel(jobs, child.id);
      expect(jobs.job(id).state).toBe('RUNNING');
      cancel(jobs, id);
      expect(jobs.job(id).state).toBe('CANCELLED');
      const other = begin([]);
      cancel(jobs, other.id);
      expect(jobs.job(other.id).state).toBe('CANCELLED');
    }));

  test('that is held starts none of its children and suspends those that run, until it is resumed', () =>
    withCoordinator(coordinator(1, ['hello', 'ok']), async (jobs, begin) => {
      await jobs.start();
      const { id } = begin(['hello', { wait: 'never' }, 'ok']);
      const children = childrenOf(jobs, jobs.job(id));
      await until(() => children.every((child) => jobs.attempts(child.id)[0]?.state === 'RUNNING'));
      setHeld(jobs.db, id, true);
      await until(() => children.every((child) => jobs.job(child.id).state === 'QUEUED'));
      expect(children.map((child) => endings(jobs, child.id))).toEqual([['SUSPENDED'], ['SUSPENDED']]);
      const other = jobs.submit();
      expect((await jobs.ended(other.id)).state).toBe('SUCCEEDED');
      expect(children.map((child) => jobs.attempts(child.id).length)).toEqual([1, 1]);
      setHeld(jobs.db, id, false);
      await until(() => children.every((child) => jobs.attempts(child.id)[1]?.state === 'RUNNING'));
      cancel(jobs, id);
      expect((await jobs.ended(id)).state).toBe('CANCELLED');
    }));

  test('that fails cancels what is left of its children', () => {
    const end = (states: string[]): CoordinatorEnd | null =>
      states.includes('FAILED') ? { state: 'FAILED', failure: { code: 'CHILD_FAILED', message: 'One of them failed.' } } : null;
    return withCoordinator(coordinator(1, [], end), async (jobs, begin) => {
      const { id } = begin(['hello', { exit: 65 }]);
      const waiting = inTransaction(jobs.db, (tx) =>
        enqueue(tx, nobody, { kind: 'TRAIN', ...specOf(jobs.folder, ['hello', { wait: 'never' }, 'ok']), parentId: id, priority: -1 }),
      );
      await jobs.start();
      expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'CHILD_FAILED', failureMessage: 'One of them failed.' });
      expect((await jobs.ended(waiting.id)).state).toBe('CANCELLED');
      expect(retryJob(jobs, jobs.kinds, nobody, id)).toMatchObject({ state: 'RUNNING', retryOfId: id, attemptNumber: 0 });
    });
  });
});
