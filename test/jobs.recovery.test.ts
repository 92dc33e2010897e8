import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { identify } from '../src/jobs/executor/local.ts';
import { cancelJob, recordProcess } from '../src/jobs/moves.ts';
import { claimNext, prepareSlots } from '../src/jobs/queue.ts';
import { recover } from '../src/jobs/scheduler.ts';
import { sweepWork } from '../src/jobs/workFolders.ts';
import { createLog } from '../src/log.ts';
import { readSlots } from '../src/system/system.ts';
import type { Step } from './support/child.ts';
import { endings, type Jobs, nobody, until, withJobs } from './support/jobs.ts';
import { withFolder } from './support/server.ts';

const silent = createLog({ logLevel: 'silent' });

/** A process in a group of its own, as a job's is; gone at the end. */
async function withProcess<T>(
  command: string[],
  use: (pid: number, stdout: AsyncIterator<string>) => Promise<T>,
  cwd?: string,
): Promise<T> {
  const child = spawn(command[0] as string, command.slice(1), { cwd, detached: true, stdio: ['ignore', 'pipe', 'ignore'] });
  const exit = once(child, 'exit');
  try {
    return await use(child.pid as number, createInterface({ input: child.stdout })[Symbol.asyncIterator]());
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(-(child.pid as number), 'SIGKILL');
    await exit;
  }
}

/** A job whose attempt is `pid`, as far as the database knows. */
function claimAs(jobs: Jobs, child: Parameters<typeof recordProcess>[3], steps: Step[] = ['hello', 'ok']): string {
  const { id } = jobs.submit({ steps });
  prepareSlots(jobs.db, jobs.config.slots);
  expect(claimNext(jobs.db, jobs.kinds)?.job.id).toBe(id);
  recordProcess(jobs.db, id, 1, child);
  return id;
}

describe('what a server that died left', () => {
  afterEach(() => void vi.restoreAllMocks());

  test('an orphan is killed before its slot is free; its attempt is LOST, not charged, and the job continues', async () => {
    await withJobs(async (jobs) => {
      const orphan = async (pid: number) => {
        const id = claimAs(jobs, { pid, pidStart: null, bootId: null, ...identify(pid) });
        await jobs.start();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(identify(pid)).toBeNull();
        expect(endings(jobs, id)).toEqual(['LOST', 'SUCCEEDED']);
      };
      await withProcess(['sleep', '1000'], orphan, jobs.folder);
    });
  });

  test('an orphan that cannot be killed keeps its slot until it has gone, and the server starts all the same', async () => {
    await withJobs(
      async (jobs) => {
        const orphan = async (pid: number) => {
          const id = claimAs(jobs, { pid, pidStart: null, bootId: null, ...identify(pid) });
          const kill = vi.spyOn(process, 'kill').mockReturnValue(true);
          await jobs.start();
          const [other, slotless] = [jobs.submit(), jobs.submit({ slots: 0 })];
          expect((await jobs.ended(slotless.id)).state).toBe('SUCCEEDED');
          expect(kill).toHaveBeenCalledWith(-pid, 'SIGKILL');
          expect([endings(jobs, id), jobs.job(other.id).state]).toEqual([['STARTING'], 'QUEUED']);
          expect(readSlots(jobs.db).map((slot) => slot.jobId)).toEqual([id]);
          kill.mockRestore();
          expect((await jobs.ended(other.id)).state).toBe('SUCCEEDED');
          expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
          expect(endings(jobs, id)).toEqual(['LOST', 'SUCCEEDED']);
        };
        await withProcess(['sleep', '1000'], orphan, jobs.folder);
      },
      { slots: 1 },
    );
  });

  test('a copy of a data folder leaves the processes of the original alone', async () => {
    await withFolder(async (original) => {
      const copied = (pid: number) =>
        withJobs(async (jobs) => {
          const id = claimAs(jobs, { pid, pidStart: null, bootId: null, ...identify(pid) });
          await jobs.start();
          expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
          expect(endings(jobs, id)).toEqual(['LOST', 'SUCCEEDED']);
          expect(identify(pid)).not.toBeNull();
        });
      await withProcess(['sleep', '1000'], copied, original);
    });
  });

  test('a later process with the same pid is left alone', async () => {
    await withProcess(['sleep', '1000'], async (pid) => {
      const mine = identify(pid);
      await withJobs(async (jobs) => {
        const others = [
          { pid, pidStart: '1', bootId: mine?.bootId ?? null },
          { pid, pidStart: mine?.pidStart ?? null, bootId: 'an earlier boot' },
          { pid, pidStart: null, bootId: null },
        ];
        for (const other of others) {
          const id = claimAs(jobs, other);
          const scheduler = await jobs.start();
          expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
          await scheduler.stop();
        }
        expect(identify(pid)).toEqual(mine);
      });
    });
  });

  test('a job under which the server dies each time is charged from the second death on, and is not tried for ever', async () => {
    await withJobs(async (jobs) => {
      const id = claimAs(jobs, { pid: null, pidStart: null, bootId: null });
      for (let deaths = 1; deaths < 4; deaths += 1) {
        expect(recover(jobs, jobs.kinds, silent)).toEqual([]);
        expect(jobs.job(id).state).toBe('QUEUED');
        jobs.db.$client.exec('UPDATE job SET notBefore = NULL');
        expect(claimNext(jobs.db, jobs.kinds)?.job.id).toBe(id);
      }
      recover(jobs, jobs.kinds, silent);
      const failureMessage = '3 attempts crashed; the last one: The server died while the attempt ran.';
      expect(jobs.job(id)).toMatchObject({ state: 'FAILED', failureCode: 'POISON', failureMessage });
      expect(endings(jobs, id)).toEqual(['LOST', 'LOST charged', 'LOST charged', 'LOST charged']);
    });
  });

  test('a process that has ended, though nobody has collected it, holds nothing up', async () => {
    await withProcess(['sh', '-c', 'sleep 0 & echo $!; exec sleep 1000'], async (_pid, stdout) => {
      const zombie = Number((await stdout.next()).value);
      await until(() => identify(zombie) === null);
      expect(existsSync(`/proc/${zombie}`)).toBe(true);
    });
  });

  test('a job that was being cancelled is CANCELLED', async () => {
    await withJobs(async (jobs) => {
      const id = claimAs(jobs, { pid: null, pidStart: null, bootId: null });
      cancelJob(jobs.db, jobs.kinds, nobody, id);
      await jobs.start();
      expect(jobs.job(id)).toMatchObject({ state: 'CANCELLED', attemptNumber: 1 });
    });
  });

  test('work folders of jobs that have ended, and of none, go', async () => {
    await withJobs(async (jobs) => {
      const first = await jobs.start();
      const { id } = jobs.submit();
      await jobs.ended(id);
      await first.stop();
      for (const name of [id, 'nobody']) mkdirSync(join(jobs.folder, 'work', name, '1'), { recursive: true });
      await sweepWork(jobs, Date.now());
      expect(readdirSync(join(jobs.folder, 'work'))).toEqual([]);
    });
  });

  test('fewer slots than before: those beyond go', async () => {
    await withFolder(async (folder) => {
      const count = (slots: number) =>
        withJobs(
          async (jobs) => {
            await jobs.start();
            return readSlots(jobs.db).length;
          },
          { folder, slots },
        );
      expect([await count(3), await count(1), await count(2)]).toEqual([3, 1, 2]);
    });
  });
});
