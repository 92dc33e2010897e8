import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { durationOf } from '../src/jobs/jobs.ts';
import { phases } from '../src/jobs/protocol.ts';
import { watchProgress } from '../src/jobs/watch.ts';
import type { Step } from './support/child.ts';
import { endings, isAlive, isType, type Jobs, look, touch, until, withJobs } from './support/jobs.ts';
import { scripted } from './support/kinds.ts';

describe('time', () => {
  const now = performance.now.bind(performance);
  let passedMs = 0;
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    passedMs = 0;
  });

  /** Puts the clock that counts durations forward; the scheduler has looked at it. */
  async function pass(jobs: Jobs, ms: number): Promise<void> {
    passedMs += ms;
    vi.spyOn(performance, 'now').mockImplementation(() => now() + passedMs);
    await look(jobs);
  }

  test('a step that stands still, heartbeats or not, is a hang: TERM, then KILL, charged, tried again', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const hang = (attempt: number, how: 'silent' | 'with heartbeats'): Step[] => [
          { phase: 'training', attempt },
          { hang: how, attempt },
        ];
        const steps: Step[] = ['hello', ...hang(1, 'with heartbeats'), ...hang(2, 'silent'), 'ok'];
        const { id } = jobs.submit({ steps, ignores: ['SIGTERM'] });
        for (const number of [1, 2]) {
          await jobs.event(id, (e) => e.type === 'PHASE' && e.attemptNumber === number);
          await pass(jobs, phases.training.stallMsMax + 1000);
        }
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(endings(jobs, id)).toEqual(['CRASHED charged', 'CRASHED charged', 'SUCCEEDED']);
        expect(jobs.attempts(id).map((a) => a.signal)).toEqual(['SIGKILL', 'SIGKILL', null]);
        const failures = jobs.events(id).flatMap((e) => (e.payloadJson.failure as { message: string } | undefined)?.message ?? []);
        expect(failures).toEqual(Array(2).fill('The job stood still for too long and was killed.'));
      },
      { ladderMs: { hang: [0, 1000] } },
    );
  });

  test('each phase has its own limit, and a step that moves is no hang, however long it takes', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({
        steps: ['hello', { phase: 'export' }, { wait: 'moved on', moving: true }, { phase: 'decoding' }, { wait: 'go' }, 'ok'],
      });
      const ticks = watchProgress(jobs, id);
      for (let i = 0; i < 3; i += 1) {
        await pass(jobs, phases.export.stallMsMax - 60_000);
        // The tick that was on its way, and one that was made after the clock was put forward.
        await ticks.next();
        await ticks.next();
      }
      touch(jobs, 'moved on');
      await jobs.event(id, (e) => e.payloadJson.phase === 'decoding');
      expect(endings(jobs, id)).toEqual(['RUNNING']);
      await pass(jobs, phases.decoding.stallMsMax + 1000);
      await jobs.event(id, (e) => e.payloadJson.attemptState === 'CRASHED');
      touch(jobs, 'go');
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
    });
  });

  test('a job that takes longer than its kind may is stopped for good, though it moves', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { wait: 'for ever', moving: true }] });
      await watchProgress(jobs, id).next();
      await pass(jobs, scripted.timeLimitMs + 1);
      expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'TIME_LIMIT' });
      expect(endings(jobs, id)).toEqual(['FAILED']);
    });
  });

  test('while what it made is being finished it does not hang', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const finishing = Promise.withResolvers<void>();
    const finish = async (...args: Parameters<typeof scripted.finish>) => {
      finishing.resolve();
      await promise;
      return scripted.finish(...args);
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        await finishing.promise;
        await pass(jobs, 3_000_000);
        resolve();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      },
      { kind: { ...scripted, finish } },
    );
  });

  test('the clock of the wall may jump by hours: jobs run on, events and the queue keep their order', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    const hour = 3_600_000;
    await withJobs(async (jobs) => {
      await jobs.start();
      const now = Date.now();
      const waiting = (name: string) =>
        jobs.submit({ steps: ['hello', { phase: 'training' }, { wait: name }, { epoch: 1 }, 'ok'], slots: -1 }).id;
      const [running, second] = [waiting('go'), waiting('go')];
      await jobs.event(running, isType('PHASE'));
      vi.setSystemTime(now + 5 * hour);
      await look(jobs);
      vi.setSystemTime(now - hour);
      await look(jobs);
      const third = waiting('go');
      touch(jobs, 'go');
      await Promise.all([running, second, third].map(jobs.ended));
      for (const id of [running, second, third]) expect(endings(jobs, id)).toEqual(['SUCCEEDED']);
      expect(jobs.events(running).map((e) => e.seq)).toEqual([1, 2, 3, 4, 5, 6]);
      expect(jobs.events(running).map((e) => e.at - now)).toEqual([0, 0, 0, -hour, -hour, -hour].map((ms) => expect.closeTo(ms, -5)));
      const started = jobs.db.$client
        .prepare('SELECT jobId FROM job_event WHERE payloadJson LIKE \'%"RUNNING"%\' ORDER BY rowid')
        .pluck()
        .all();
      expect(started).toEqual([running, second, third]);
      // It ended an hour before it started, and took seconds.
      const [only] = jobs.attempts(running);
      expect(Number(only?.endedAt) - Number(only?.startedAt)).toBeLessThan(-hour / 2);
      expect(only?.durationMs).toBeGreaterThanOrEqual(0);
      expect(durationOf(jobs.db, running)).toBeLessThan(hour / 2);
    });
  });
});

describe('a database that cannot be written', () => {
  test('locked by another process while events come and the job ends: nothing is lost', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { wait: 'go' }, { epoch: 1 }, { epoch: 2 }, 'ok'] });
      await jobs.event(id, isType('PHASE'));
      const other = new Sqlite(join(jobs.folder, 'whetstone.db'));
      other.exec('BEGIN IMMEDIATE');
      touch(jobs, 'go');
      await until(() => jobs.attempts(id).every((a) => !isAlive(a)));
      expect(jobs.events(id).at(-1)?.type).toBe('PHASE');
      other.exec('ROLLBACK');
      other.close();
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(jobs.events(id).map((e) => e.type)).toEqual([
        'STATE',
        'STATE',
        'PHASE',
        'EPOCH',
        'CHECKPOINT',
        'EPOCH',
        'CHECKPOINT',
        'STATE',
      ]);
    });
  });

  test('on a full disk: the events wait until there is room', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { wait: 'go' }, { warnings: 5000 }, 'ok'] });
      await jobs.event(id, isType('PHASE'));
      const { $client } = jobs.db;
      const pages = $client.pragma('page_count', { simple: true }) as number;
      $client.pragma(`max_page_count = ${pages + 10}`);
      touch(jobs, 'go');
      await until(() => jobs.events(id).length > 100);
      const stored = jobs.events(id).length;
      expect(() => jobs.submit({ steps: Array(2000).fill('hello') })).toThrow('full');
      expect(jobs.job(id).state).toBe('RUNNING');
      $client.pragma('max_page_count = 1000000');
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(stored).toBeLessThan(5000);
      expect(jobs.events(id).filter(isType('WARNING'))).toHaveLength(5000);
    });
  });
});
