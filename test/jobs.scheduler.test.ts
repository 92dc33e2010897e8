import { readdirSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import type { JobKind } from '../src/jobs/kinds.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import { setJobPriority } from '../src/jobs/priority.ts';
import { retryJob } from '../src/jobs/retry.ts';
import type { JobEvent } from '../src/jobs/tables.ts';
import { waitReason } from '../src/jobs/waiting.ts';
import { retentionSweeps } from '../src/retention/sweep.ts';
import { readSlots } from '../src/system/system.ts';
import type { Step } from './support/child.ts';
import { cancel, endings, isAlive, isState, isType, type Jobs, logOf, look, nobody, touch, until, withJobs } from './support/jobs.ts';
import { scripted } from './support/kinds.ts';

const runningIds = (jobs: Jobs) =>
  jobs.db.$client.prepare("SELECT id FROM job WHERE state IN ('RUNNING', 'CANCELLING') ORDER BY rowid").pluck().all() as string[];
const heldIds = (jobs: Jobs) => readSlots(jobs.db).map((s) => s.jobId);

describe('slots', () => {
  test('two jobs hold the two slots; the third starts when one of them ends', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const waiting = (name: string) => jobs.submit({ steps: ['hello', { wait: name }, 'ok'] }).id;
      const [a, b, c] = [waiting('a'), waiting('b'), waiting('c')];
      await until(() => jobs.attempts(b)[0]?.state === 'RUNNING');
      expect(heldIds(jobs)).toEqual([a, b]);
      // Behind the server when both want the processor.
      expect(getPriority(jobs.attempts(b)[0]?.pid as number)).toBe(Math.min(19, getPriority() + 10));
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
      const waiting = (name: string, slots: -1 | 0 | 1) => jobs.submit({ steps: ['hello', { wait: name }, 'ok'], slots }).id;
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

  test('a job that holds others back can be moved behind them: they start at once', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const waiting = (name: string, slots: -1 | 1) => jobs.submit({ steps: ['hello', { wait: name }, 'ok'], slots }).id;
      const first = waiting('first', 1);
      await jobs.event(first, isState('RUNNING'));
      const benchmark = waiting('benchmark', -1);
      const later = waiting('later', 1);
      expect(jobs.job(later).state).toBe('QUEUED');
      setJobPriority(jobs, nobody, benchmark, { priority: -1 });
      await jobs.event(later, isState('RUNNING'));
      for (const name of ['first', 'later', 'benchmark']) touch(jobs, name);
      await Promise.all([first, later, benchmark].map(jobs.ended));
    });
  });

  test('a slot is a GPU: its number modulo theirs; a job of all slots gets each once, one without a slot none', async () => {
    await withJobs(
      async (jobs) => {
        writeFileSync(
          join(jobs.folder, 'nvidia-smi'),
          `#!/bin/sh\necho '0, GPU-aaa, A, 1, 1, 0, 30, 9'\necho '1, GPU-bbb, B, 1, 1, 0, 30, 9'\n`,
          { mode: 0o755 },
        );
        await jobs.start();
        const show = (slots: -1 | 0 | 1) =>
          jobs.submit({ steps: ['hello', { show: 'CUDA_VISIBLE_DEVICES' }, { wait: 'go' }, 'ok'], slots }).id;
        const [first, second, third] = [show(1), show(1), show(1)];
        await until(() => runningIds(jobs).length === 3);
        touch(jobs, 'go');
        await Promise.all([first, second, third].map(jobs.ended));
        const [all, none] = [show(-1), show(0)];
        await Promise.all([all, none].map(jobs.ended));
        const shown = await Promise.all([first, second, third, all, none].map((id) => logOf(jobs, id)));
        expect(shown.flat()).toEqual(['GPU-aaa', 'GPU-bbb', 'GPU-aaa', 'GPU-aaa,GPU-bbb', '']);
      },
      { slots: 3, env: (folder) => ({ PATH: `${folder}:${process.env.PATH}` }) },
    );
  });
});

describe('a job of several slots', () => {
  test('waits for those of different GPUs, and lets no later job take one of them', async () => {
    await withJobs(
      async (jobs) => {
        const smi = `#!/bin/sh\necho '0, GPU-aaa, A, 1, 1, 0, 30, 9'\necho '1, GPU-bbb, B, 1, 1, 0, 30, 9'\n`;
        writeFileSync(join(jobs.folder, 'nvidia-smi'), smi, { mode: 0o755 });
        await jobs.start();
        const show = (name: string, slots: number) =>
          jobs.submit({ steps: ['hello', { show: 'CUDA_VISIBLE_DEVICES' }, { wait: name }, 'ok'], slots }).id;
        const [a, b, c] = [show('a', 1), show('b', 1), show('c', 1)];
        await until(() => runningIds(jobs).length === 3);
        const pair = show('pair', 2);
        const later = show('later', 1);
        for (const [name, id] of Object.entries({ a, c })) {
          touch(jobs, name);
          await jobs.ended(id);
        }
        // Both of the free slots have the first GPU.
        expect(heldIds(jobs)).toEqual([null, b, null]);
        expect([jobs.job(pair).state, jobs.job(later).state]).toEqual(['QUEUED', 'QUEUED']);
        touch(jobs, 'b');
        await jobs.event(later, isState('RUNNING'));
        expect(heldIds(jobs)).toEqual([pair, pair, later]);
        for (const name of ['pair', 'later']) touch(jobs, name);
        await Promise.all([pair, later].map(jobs.ended));
        expect(await logOf(jobs, pair)).toEqual(['GPU-aaa,GPU-bbb']);
      },
      { slots: 3, env: (folder) => ({ PATH: `${folder}:${process.env.PATH}` }) },
    );
  });

  test('that a server with fewer slots finds in its queue says so, and holds nobody up', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ slots: 3 });
      expect((await jobs.ended(jobs.submit().id)).state).toBe('SUCCEEDED');
      const message = 'It needs 3 slots, and the server has 2: start the server with WHETSTONE_SLOTS=3, or cancel the job.';
      expect(waitReason(jobs, jobs.job(id))).toEqual({ code: 'TOO_FEW_SLOTS', message });
      cancel(jobs, id);
      expect((await jobs.ended(id)).state).toBe('CANCELLED');
    });
  });
});

test("the scheduler's error is logged once, not ten times a second, and again where it comes back", () =>
  withJobs(async (jobs) => {
    const errors: string[] = [];
    await jobs.start(pino({ level: 'error' }, { write: (line) => errors.push(JSON.parse(line).msg) }));
    const { $client } = jobs.db;
    for (const times of [1, 2]) {
      const { id } = jobs.submit();
      $client.pragma('query_only = ON');
      for (let looks = 0; looks < 20; looks += 1) await look(jobs);
      expect(jobs.job(id).state).toBe('QUEUED');
      expect(errors).toEqual(Array(times).fill('The scheduler could not look at the queue: attempt to write a readonly database'));
      $client.pragma('query_only = OFF');
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
    }
    expect(errors).toHaveLength(2);
  }));

describe('back-off', () => {
  const crashing: Step[] = ['hello', { signal: 'SIGKILL', attempt: 1 }, 'ok'];
  const putOff = (jobs: Jobs, id: string, ms: number) =>
    jobs.db.$client.prepare('UPDATE job SET notBefore = ? WHERE id = ?').run(Date.now() + ms, id);

  test('a job that crashed does not come back at once, and holds nobody up meanwhile', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit({ steps: crashing });
        await jobs.event(id, ({ payloadJson }) => payloadJson.attemptState === 'CRASHED');
        const { notBefore, backoffs } = jobs.job(id);
        expect([Math.abs(Number(notBefore) - Date.now() - 240_000) < 60_000, backoffs]).toEqual([true, 1]);
        const others = [jobs.submit(), jobs.submit({ slots: -1 })];
        for (const other of others) expect((await jobs.ended(other.id)).state).toBe('SUCCEEDED');
        expect(endings(jobs, id)).toEqual(['CRASHED charged']);
        putOff(jobs, id, -1);
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(jobs.job(id).notBefore).toBeNull();
      },
      { slots: 1, backoffMs: () => 240_000 },
    );
  });

  test('a clock that was put back by an hour does not put the next attempt off by one', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit({ steps: crashing });
        await jobs.event(id, ({ payloadJson }) => payloadJson.attemptState === 'CRASHED');
        putOff(jobs, id, 3_600_000);
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      },
      { backoffMs: () => 240_000 },
    );
  });
});

describe('a GPU that is not known', () => {
  const onDevice = (device: 'auto' | 'cuda'): JobKind => ({
    ...scripted,
    launch: async (...args) => {
      const launch = await scripted.launch(...args);
      return { ...launch, spec: { ...launch.spec, device } as never };
    },
  });
  const withSmi = (script: string) => (folder: string) => {
    writeFileSync(join(folder, 'nvidia-smi'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return { PATH: `${folder}:${process.env.PATH}` };
  };

  test('fails a job that asks for CUDA, and says why', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        const { state, failureCode, failureMessage } = await jobs.ended(id);
        expect([state, failureCode]).toEqual(['FAILED', 'DEVICE_UNAVAILABLE']);
        expect(failureMessage).toContain('no GPU is known: nvidia-smi failed: no driver');
      },
      { kind: onDevice('cuda'), env: withSmi('echo "no driver" >&2; exit 9') },
    );
  });

  test('is a warning of a job that takes what is there', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(jobs.events(id).filter(isType('WARNING'))).toMatchObject([
          { payloadJson: { code: 'NO_GPU', message: 'No GPU is known, so this attempt runs on the CPU: nvidia-smi failed: no driver' } },
        ]);
      },
      { kind: onDevice('auto'), env: withSmi('echo "no driver" >&2; exit 9') },
    );
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

  test('of a job that waits for its next attempt: its work folder goes with the next sweep', async () => {
    await withJobs(async (jobs) => {
      const first = await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'with heartbeats' }] });
      await jobs.event(id, isType('PHASE'));
      await first.stop();
      expect(jobs.job(id).state).toBe('QUEUED');
      expect(readdirSync(join(jobs.folder, 'work'))).toEqual([id]);
      await cancel(jobs, id);
      await retentionSweeps(jobs).WORK?.();
      expect(readdirSync(join(jobs.folder, 'work'))).toEqual([]);
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
      expect(
        jobs
          .events(id)
          .filter(isType('STATE'))
          .map((e) => e.payloadJson.state),
      ).toEqual(['QUEUED', 'RUNNING', 'CANCELLING', 'CANCELLED']);
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
      { ladderMs: { cancel: [100, 4000] } },
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
        await until(() => jobs.attempts(id).every((a) => !isAlive(a)));
        await cancel(jobs, id);
        expect(jobs.job(id).state).toBe('CANCELLING');
        resolve();
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        expect(
          jobs
            .events(id)
            .filter(isType('STATE'))
            .map((e) => e.payloadJson.state),
        ).toEqual(['QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED']);
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

describe('drain', () => {
  const steps: Step[] = ['hello', { epoch: 1 }, { epoch: 2 }, { hang: 'with heartbeats', attempt: 1 }, { epoch: 3 }, 'ok'];

  test('suspends what runs, starts no more, and the next start goes on from the checkpoint', async () => {
    await withJobs(async (jobs) => {
      const first = await jobs.start();
      const { id } = jobs.submit({ steps });
      await jobs.event(id, ({ type, payloadJson }) => type === 'CHECKPOINT' && payloadJson.epoch === 2);
      const stopped = first.stop();
      const later = jobs.submit();
      await stopped;
      expect([jobs.job(id).state, jobs.job(later.id).state]).toEqual(['QUEUED', 'QUEUED']);
      expect(heldIds(jobs)).toEqual([null, null]);
      expect(jobs.attempts(id)).toMatchObject([{ state: 'SUSPENDED', exitCode: 75, charged: false }]);

      await jobs.start();
      await jobs.ended(later.id);
      expect(await jobs.ended(id)).toMatchObject({ state: 'SUCCEEDED', resultJson: { attempt: 2 } });
      expect(endings(jobs, id)).toEqual(['SUSPENDED', 'SUCCEEDED']);
      const epochs = jobs.events(id).filter(isType('EPOCH'));
      expect(epochs.map((e) => [e.attemptNumber, e.payloadJson.epoch])).toEqual([
        [1, 1],
        [1, 2],
        [2, 3],
      ]);
    });
  });

  test('of a child that does not obey: TERM, then KILL, and still not charged', async () => {
    await withJobs(
      async (jobs) => {
        const first = await jobs.start();
        const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'silent' }], ignores: ['commands', 'SIGTERM'] });
        await jobs.event(id, isType('PHASE'));
        await first.stop();
        expect(jobs.attempts(id)).toMatchObject([{ state: 'SUSPENDED', signal: 'SIGKILL', charged: false }]);
        expect(await logOf(jobs, id)).toEqual(['SIGTERM was ignored']);
        expect(jobs.job(id).state).toBe('QUEUED');
      },
      { ladderMs: { suspend: [100, 4000] } },
    );
  });

  test('does not wait for the longer time that a cancelled job had', async () => {
    await withJobs(
      async (jobs) => {
        const first = await jobs.start();
        const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'silent' }], ignores: ['commands'] });
        await jobs.event(id, isType('PHASE'));
        await cancel(jobs, id);
        await first.stop();
        expect(jobs.job(id).state).toBe('CANCELLED');
      },
      { ladderMs: { cancel: [3_600_000, 1000], suspend: [100, 4000] } },
    );
  });

  test('a checkpoint that is not whole is passed over for the one before it', async () => {
    await withJobs(async (jobs) => {
      const first = await jobs.start();
      const { id } = jobs.submit({ steps });
      await jobs.event(id, ({ type, payloadJson }) => type === 'CHECKPOINT' && payloadJson.epoch === 2);
      await first.stop();
      writeFileSync(join(jobs.folder, 'work', id, '1', 'epoch-2.json'), '{"epo');
      await jobs.start();
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      const epochs = jobs.events(id).filter(isType('EPOCH'));
      expect(epochs.map((e) => [e.attemptNumber, e.payloadJson.epoch])).toEqual([
        [1, 1],
        [1, 2],
        [2, 2],
        [2, 3],
      ]);
      // The point of the repeated epoch stands once.
      const points = jobs.db.$client.prepare('SELECT step, attemptNumber FROM metric_point WHERE jobId = ? ORDER BY step').raw().all(id);
      expect(points).toEqual([
        [10, 1],
        [20, 2],
        [30, 2],
      ]);
    });
  });

  test('only the folders of the running attempt and of the checkpoint that it goes on from stay, and none at the end', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const crash = (attempt: number): Step => ({ signal: 'SIGKILL', attempt });
      const { id } = jobs.submit({ steps: ['hello', { epoch: 1 }, crash(1), crash(2), { phase: 'training' }, { wait: 'go' }, 'ok'] });
      await jobs.event(id, isType('PHASE'));
      expect(readdirSync(join(jobs.folder, 'work', id))).toEqual(['1', '3']);
      touch(jobs, 'go');
      await jobs.ended(id);
      await until(() => readdirSync(join(jobs.folder, 'work')).length === 0);
    });
  });
});

describe('retry', () => {
  const steps: Step[] = ['hello', { epoch: 1 }, { epoch: 2 }, { phase: 'validation' }, { wait: 'go' }, { epoch: 3 }, 'ok'];
  const isSecondCheckpoint = ({ type, payloadJson }: JobEvent) => type === 'CHECKPOINT' && payloadJson.epoch === 2;
  const epochsOf = (jobs: Jobs, id: string) =>
    jobs
      .events(id)
      .filter(isType('EPOCH'))
      .map((e) => e.payloadJson.epoch);

  test('of a cancelled job goes on from its checkpoint, and of that one from its own', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps });
      await jobs.event(id, isSecondCheckpoint);
      await cancel(jobs, id);
      expect((await jobs.ended(id)).state).toBe('CANCELLED');
      const again = retryJob(jobs, jobs.kinds, nobody, id);
      await jobs.event(again.id, isType('PHASE'));
      await cancel(jobs, again.id);
      expect((await jobs.ended(again.id)).state).toBe('CANCELLED');
      touch(jobs, 'go');
      const last = retryJob(jobs, jobs.kinds, nobody, again.id);
      expect((await jobs.ended(last.id)).state).toBe('SUCCEEDED');
      expect([epochsOf(jobs, id), epochsOf(jobs, again.id), epochsOf(jobs, last.id)]).toEqual([[1, 2], [], [3]]);
      await until(() => readdirSync(join(jobs.folder, 'work')).length === 0);
    });
  });

  test('a checkpoint is kept for as long as a retry waits in the queue, and while another retry of the same job ends', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit({ steps });
        await jobs.event(id, isSecondCheckpoint);
        await cancel(jobs, id);
        await jobs.ended(id);
        // The slot is taken: the retries, one of a retry, wait.
        const busy = jobs.submit({ steps: ['hello', { wait: 'free' }, 'ok'] });
        await jobs.event(busy.id, isState('RUNNING'));
        const first = retryJob(jobs, jobs.kinds, nobody, id);
        await cancel(jobs, first.id);
        const [second, third] = [retryJob(jobs, jobs.kinds, nobody, first.id), retryJob(jobs, jobs.kinds, nobody, id)];
        jobs.db.$client.exec("UPDATE job SET endedAt = endedAt - 10 * 24 * 3600000 WHERE state = 'CANCELLED'");
        const sweeps = retentionSweeps({ ...jobs, config: { ...jobs.config, jobHistoryDays: 2 } });
        for (const name of ['WORK', 'JOB_EVENTS']) await sweeps[name]?.();
        touch(jobs, 'free');
        touch(jobs, 'go');
        for (const retry of [second, third]) expect((await jobs.ended(retry.id)).state).toBe('SUCCEEDED');
        expect([epochsOf(jobs, second.id), epochsOf(jobs, third.id)]).toEqual([[3], [3]]);
        await until(() => readdirSync(join(jobs.folder, 'work')).length === 0);
      },
      { slots: 1 },
    );
  });

  test('a checkpoint is kept for a week', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps });
      await jobs.event(id, isSecondCheckpoint);
      await cancel(jobs, id);
      await jobs.ended(id);
      const endedDaysAgo = (days: number) =>
        jobs.db.$client.prepare('UPDATE job SET endedAt = ? WHERE id = ?').run(Date.now() - days * 24 * 3600_000, id);
      endedDaysAgo(6.9);
      await retentionSweeps(jobs).WORK?.();
      expect(readdirSync(join(jobs.folder, 'work', id))).toEqual(['1']);
      endedDaysAgo(7.1);
      await retentionSweeps(jobs).WORK?.();
      expect(readdirSync(join(jobs.folder, 'work'))).toEqual([]);
    });
  });
});
