import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { phases } from '../src/jobs/protocol.ts';
import type { Step } from './support/child.ts';
import { endings, isState, isType, type Jobs, look, touch, until, withJobs } from './support/jobs.ts';
import { scripted } from './support/kinds.ts';
import { fillDisk, unmountable, withSmallDisk } from './support/smallDisk.ts';

const mebibyte = 2 ** 20;
const reserveOf = (bytes: number) => ({ env: () => ({ WHETSTONE_DISK_RESERVE_BYTES: String(bytes) }) });
const failures = (jobs: Jobs, id: string) =>
  jobs.events(id).flatMap((e) => (e.payloadJson.failure as { code: string } | undefined)?.code ?? []);

describe('a job that meets a full disk goes back into the queue, uncharged', () => {
  test('told by its child, however often', () =>
    withJobs(async (jobs) => {
      await jobs.start();
      const error = { type: 'error', code: 'DISK_FULL', message: 'full', retryable: true, hint: null, details: ['9 MiB are missing.'] };
      const full = [1, 2, 3, 4, 5].flatMap((attempt): Step[] => [
        { say: error, attempt },
        { exit: 74, attempt },
      ]);
      const { id } = jobs.submit({ steps: ['hello', { epoch: 1 }, ...full, { epoch: 2 }, 'ok'] });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(endings(jobs, id)).toEqual([...Array(5).fill('SUSPENDED'), 'SUCCEEDED']);
      expect(failures(jobs, id)).toEqual(Array(5).fill('DISK_FULL'));
      const waits = jobs.events(id).filter(isState('QUEUED')).at(-1)?.payloadJson;
      expect(waits).toMatchObject({ failure: { message: expect.stringMatching(/delete what is not needed\.\n9 MiB are missing\.$/) } });
      // Its checkpoint is kept.
      expect(jobs.events(id).filter(isType('EPOCH'))).toHaveLength(2);
    }));

  test('met by the server while it stores what the job made', () => {
    let times = 0;
    const finish: typeof scripted.finish = async (...args) => {
      times += 1;
      if (times < 5) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      return scripted.finish(...args);
    };
    return withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(endings(jobs, id)).toEqual([...Array(4).fill('SUSPENDED'), 'SUCCEEDED']);
      },
      { kind: { ...scripted, finish } },
    );
  });

  test.skipIf(unmountable)(`also where its process just dies of it ${unmountable ?? ''}`, () =>
    withSmallDisk(8 * mebibyte, (folder) =>
      withJobs(
        async (jobs) => {
          await jobs.start();
          const { id } = jobs.submit({ steps: ['hello', { phase: 'export' }, { wait: 'go' }, { signal: 'SIGBUS', attempt: 1 }, 'ok'] });
          await jobs.event(id, isType('PHASE'));
          const free = fillDisk(folder, mebibyte / 2);
          touch(jobs, 'go');
          // Its end is judged by the room that there is then.
          await until(() => jobs.attempts(id)[0]?.state === 'SUSPENDED');
          free();
          expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
          expect(endings(jobs, id)).toEqual(['SUSPENDED', 'SUCCEEDED']);
        },
        { folder, ...reserveOf(16 * mebibyte) },
      ),
    ),
  );

  test.skipIf(unmountable)(`and none begins an attempt before there is room ${unmountable ?? ''}`, () =>
    withSmallDisk(8 * mebibyte, (folder) =>
      withJobs(
        async (jobs) => {
          const free = fillDisk(folder, mebibyte / 2);
          await jobs.start();
          const { id } = jobs.submit();
          await look(jobs);
          expect([jobs.job(id).state, jobs.attempts(id)]).toEqual(['QUEUED', []]);
          free();
          expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        },
        { folder, ...reserveOf(16 * mebibyte) },
      ),
    ),
  );
});

describe('a healthy job is not killed as a hang', () => {
  const now = performance.now.bind(performance);
  afterEach(() => void vi.restoreAllMocks());

  test('while the database waits for room, longer than its phase may stand still', () =>
    withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({
        steps: ['hello', { phase: 'training' }, { wait: 'go' }, { warnings: 5000 }, { wait: 'on', moving: true }, 'ok'],
      });
      await jobs.event(id, isType('PHASE'));
      const { $client } = jobs.db;
      $client.pragma(`max_page_count = ${$client.pragma('page_count', { simple: true })}`);
      const writes = vi.spyOn($client, 'transaction');
      touch(jobs, 'go');
      // Each try meets the full disk until there is room.
      await until(() => writes.mock.calls.length > 1);
      const stored = jobs.events(id).length;
      let passedMs = 0;
      vi.spyOn(performance, 'now').mockImplementation(() => now() + passedMs);
      for (let i = 0; i < 3; i += 1) {
        passedMs += phases.training.stallMsMax;
        await look(jobs);
      }
      $client.pragma('max_page_count = 1000000');
      await until(() => jobs.events(id).length > stored);
      await look(jobs);
      writeFileSync(join(jobs.folder, 'on'), '');
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(endings(jobs, id)).toEqual(['SUCCEEDED']);
    }));
});
