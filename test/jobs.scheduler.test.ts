import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { cancelJob } from '../src/jobs/claim.ts';
import { readSlots } from '../src/jobs/system.ts';
import type { Step } from './support/child.ts';
import { cancel, endings, isState, isType, type Jobs, logOf, nobody, scripted, until, withJobs } from './support/jobs.ts';

const at = (jobs: Jobs, name: string) => join(jobs.folder, name);
/** What a child waits for, or has done. */
const touch = (jobs: Jobs, name: string) => writeFileSync(at(jobs, name), '');

const runningIds = (jobs: Jobs) =>
  jobs.db.$client.prepare("SELECT id FROM job WHERE state IN ('RUNNING', 'CANCELLING') ORDER BY rowid").pluck().all() as string[];
const heldIds = (jobs: Jobs) => readSlots(jobs.db).map((s) => s.jobId);

describe('slots', () => {
  test('two jobs hold the two slots; the third starts when one of them ends', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const waiting = (name: string) => jobs.submit({ steps: ['hello', { wait: name }, 'ok'], folder: jobs.folder }).id;
      const [a, b, c] = [waiting('a'), waiting('b'), waiting('c')];
      await until(() => jobs.attempts(b)[0]?.state === 'RUNNING');
      expect(heldIds(jobs)).toEqual([a, b]);
      expect(jobs.job(c).state).toBe('QUEUED');
      touch(jobs, 'a');
      await jobs.event(c, isState('RUNNING'));
      expect(jobs.job(a).state).toBe('SUCCEEDED');
      expect(heldIds(jobs)).toEqual([c, b]);
      touch(jobs, 'b');
      touch(jobs, 'c');
      await Promise.all([jobs.ended(b), jobs.ended(c)]);
      expect(heldIds(jobs)).toEqual([null, null]);
    });
  });

  test('a job that needs all slots waits for every other one, lets nothing pass, and runs alone', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const waiting = (name: string, slots: -1 | 0 | 1) =>
        jobs.submit({ steps: ['hello', { wait: name }, 'ok'], folder: jobs.folder, slots }).id;
      const [imported, trained] = [waiting('import', 0), waiting('train', 1)];
      await until(() => runningIds(jobs).length === 2);
      const benchmark = waiting('benchmark', -1);
      const [laterImport, laterTrain] = [waiting('later', 0), waiting('later', 1)];
      touch(jobs, 'train');
      await jobs.ended(trained);
      expect(runningIds(jobs)).toEqual([imported]);
      touch(jobs, 'import');
      await jobs.event(benchmark, isState('RUNNING'));
      expect(runningIds(jobs)).toEqual([benchmark]);
      expect(heldIds(jobs)).toEqual([benchmark, benchmark]);
      touch(jobs, 'later');
      touch(jobs, 'benchmark');
      await Promise.all([laterImport, laterTrain].map(jobs.ended));
      expect(jobs.job(benchmark).endedAt).toBeLessThanOrEqual(jobs.job(laterImport).startedAt as number);
    });
  });

  test('a slot is a GPU: its number modulo theirs; a job of all slots gets each once, one without a slot none', async () => {
    await withJobs(
      async (jobs) => {
        writeFileSync(at(jobs, 'nvidia-smi'), `#!/bin/sh\necho '0, GPU-aaa, A, 1, 1, 0, 30, 9'\necho '1, GPU-bbb, B, 1, 1, 0, 30, 9'\n`, { mode: 0o755 });
        await jobs.start();
        const show = (slots: -1 | 0 | 1) => jobs.submit({ steps: ['hello', { show: 'CUDA_VISIBLE_DEVICES' }, { wait: 'go' }, 'ok'], folder: jobs.folder, slots }).id;
        const [first, second, third] = [show(1), show(1), show(1)];
        await until(() => runningIds(jobs).length === 3);
        touch(jobs, 'go');
        await Promise.all([first, second, third].map(jobs.ended));
        const [all, none] = [show(-1), show(0)];
        await Promise.all([all, none].map(jobs.ended));
        const shown = await Promise.all([first, second, third, all, none].map((id) => logOf(jobs, id)));
        expect(shown.flat()).toEqual(['GPU-aaa', 'GPU-bbb', 'GPU-aaa', 'GPU-aaa,GPU-bbb', '']);
      },
      { slots: 3, path: 'folder first' },
    );
  });

  test('fewer slots after a restart: the rows beyond go', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      expect(readSlots(jobs.db)).toHaveLength(3);
      await withJobs(async (fewer) => void (await fewer.start()), { db: jobs.db, slots: 1 } as never);
    }, { slots: 3 });
  });
});

describe('cancel', () => {
  test('of a job that waits: at once, without an attempt', async () => {
    await withJobs(async (jobs) => {
      const { id } = jobs.submit();
      await cancel(jobs, id);
      expect(jobs.job(id)).toMatchObject({ state: 'CANCELLED', attemptNumber: 0 });
      await jobs.start();
      expect(jobs.attempts(id)).toEqual([]);
    });
  });

  test('of a job that waits for its next attempt: its work folder goes with it', async () => {
    await withJobs(async (jobs) => {
      const first = await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { epoch: 1 }, { hang: 'with heartbeats' }] });
      await jobs.event(id, isType('CHECKPOINT'));
      await first.stop();
      expect(jobs.job(id).state).toBe('QUEUED');
      expect(readdirSync(at(jobs, 'work'))).toEqual([id]);
      await cancel(jobs, id);
      expect(readdirSync(at(jobs, 'work'))).toEqual([]);
    });
  });

  test('while it starts: its child is never made', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const launch = async (...args: Parameters<typeof scripted.launch>) => {
      await promise;
      return scripted.launch(...args);
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        await jobs.event(id, isState('RUNNING'));
        await cancel(jobs, id);
        // The scheduler has seen it when it looks again.
        await until(() => jobs.looks() > 1);
        resolve();
        expect((await jobs.ended(id)).state).toBe('CANCELLED');
        expect(jobs.attempts(id)).toMatchObject([{ state: 'CANCELLED', pid: null, charged: false }]);
      },
      { kind: { ...scripted, launch } },
    );
  });

  test('while it runs: the child stops at its next checkpoint', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'with heartbeats' }] });
      await jobs.event(id, isType('PHASE'));
      await cancel(jobs, id);
      expect(await jobs.ended(id)).toMatchObject({ state: 'CANCELLED', failureCode: null });
      expect(jobs.attempts(id)).toMatchObject([{ state: 'CANCELLED', exitCode: 75, charged: false }]);
      expect(jobs.events(id).filter(isType('STATE')).map((e) => e.payloadJson.state)).toEqual(['QUEUED', 'RUNNING', 'CANCELLING', 'CANCELLED']);
    });
  });

  test('of a child that does not obey: TERM, then KILL', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'silent' }], ignores: ['commands', 'SIGTERM'] });
        await jobs.event(id, isType('PHASE'));
        await cancel(jobs, id);
        expect((await jobs.ended(id)).state).toBe('CANCELLED');
        expect(jobs.attempts(id)).toMatchObject([{ state: 'CANCELLED', exitCode: null, signal: 'SIGKILL', charged: false }]);
        expect(await logOf(jobs, id)).toEqual(['SIGTERM was ignored']);
      },
      { ladderMs: { cancel: [100, 2000] } },
    );
  });

  test('while what it made is being finished: too late, it succeeds', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const finish = async (...args: Parameters<typeof scripted.finish>) => {
      await promise;
      return scripted.finish(...args);
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        await until(() => jobs.attempts(id)[0]?.state === 'RUNNING');
        await until(() => jobs.attempts(id).every((a) => !jobs.isAlive(a)));
        await cancel(jobs, id);
        expect(jobs.job(id).state).toBe('CANCELLING');
        await until(() => jobs.looks() > 1);
        resolve();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(jobs.events(id).filter(isType('STATE')).map((e) => e.payloadJson.state)).toEqual(['QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED']);
      },
      { kind: { ...scripted, finish } },
    );
  });

  test('of a job that has ended is refused', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit();
      await jobs.ended(id);
      expect(() => cancelJob(jobs.db, jobs.kinds, nobody, id)).toThrow('The job has ended already: it is SUCCEEDED.');
    });
  });
});
