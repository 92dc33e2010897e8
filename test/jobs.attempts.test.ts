import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { identify } from '../src/jobs/executor/local.ts';
import { JobFailure } from '../src/jobs/kinds.ts';
import { exitCodes } from '../src/jobs/protocol.ts';
import { job } from '../src/jobs/tables.ts';
import type { Step } from './support/child.ts';
import { endings, isType, logOf, until, withJobs } from './support/jobs.ts';
import { scripted } from './support/kinds.ts';

describe('an attempt that ends by itself', () => {
  test('succeeds with done and exit 0: hello, events, metrics, result and process are recorded', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const steps: Step[] = ['hello', { phase: 'training' }, { epoch: 1 }, { epoch: 2 }, { print: 'a line' }, 'ok'];
      const { id } = jobs.submit({ steps });
      expect(await jobs.ended(id)).toMatchObject({ state: 'SUCCEEDED', failureCode: null, resultJson: { attempt: 1 } });
      expect(jobs.events(id).map((e) => [e.seq, e.attemptNumber, e.type, e.payloadJson.state ?? e.payloadJson.epoch ?? null])).toEqual([
        [1, 0, 'STATE', 'QUEUED'],
        [2, 1, 'STATE', 'RUNNING'],
        [3, 1, 'PHASE', null],
        [4, 1, 'EPOCH', 1],
        [5, 1, 'CHECKPOINT', 1],
        [6, 1, 'EPOCH', 2],
        [7, 1, 'CHECKPOINT', 2],
        [8, 1, 'STATE', 'SUCCEEDED'],
      ]);
      const points = jobs.db.$client
        .prepare('SELECT name, step, value, attemptNumber FROM metric_point WHERE jobId = ? ORDER BY step')
        .all(id);
      expect(points).toEqual([
        { name: 'val.loss', step: 10, value: 1, attemptNumber: 1 },
        { name: 'val.loss', step: 20, value: 0.5, attemptNumber: 1 },
      ]);
      expect(jobs.attempts(id)).toMatchObject([
        { number: 1, state: 'SUCCEEDED', exitCode: 0, signal: null, charged: false, environmentJson: { script: true } },
      ]);
      expect(jobs.attempts(id)[0]?.pidStart).toMatch(/^\d+$/);
      expect(await logOf(jobs, id)).toEqual(['a line']);
    });
  });

  const crash: [string, Step[], { exitCode: number | null; signal: string | null }][] = [
    ['SEGV', [{ signal: 'SIGSEGV' }], { exitCode: null, signal: 'SIGSEGV' }],
    ['KILL', [{ signal: 'SIGKILL' }], { exitCode: null, signal: 'SIGKILL' }],
    ['TERM', [{ signal: 'SIGTERM' }], { exitCode: null, signal: 'SIGTERM' }],
    ['exit 1', [{ exit: 1 }], { exitCode: 1, signal: null }],
    ['exit 0 without done', [{ exit: 0 }], { exitCode: 0, signal: null }],
    ['exit 74', [{ exit: exitCodes.IO }], { exitCode: 74, signal: null }],
    ['exit 75 that nobody asked for', [{ exit: exitCodes.STOPPED }], { exitCode: 75, signal: null }],
    [
      'exit 75 with a word of having stopped',
      [{ say: { type: 'done', status: 'suspended', result: {} } }, { exit: 75 }],
      { exitCode: 75, signal: null },
    ],
    ['done and exit 3', [{ say: { type: 'done', status: 'ok', result: {} } }, { exit: 3 }], { exitCode: 3, signal: null }],
  ];
  test.concurrent.each(crash)('%s is a crash: charged, and tried again', async (_name, ending, seen) => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', ...ending.map((step) => ({ ...(step as object), attempt: 1 }) as Step), 'ok'] });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(endings(jobs, id)).toEqual(['CRASHED charged', 'SUCCEEDED']);
      expect(jobs.attempts(id)[0]).toMatchObject(seen);
    });
  });

  test('three crashes end the job as POISON, with what happened last', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { signal: 'SIGSEGV' }] });
      const message = '3 attempts crashed; the last one: The process of the job was killed by SIGSEGV.';
      expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'POISON', failureMessage: message });
      expect(endings(jobs, id)).toEqual(['CRASHED charged', 'CRASHED charged', 'CRASHED charged']);
    });
  });

  const final: [number, string][] = [
    [exitCodes.SPECIFICATION, 'SPEC_INVALID'],
    [exitCodes.DATA, 'DATA_INVALID'],
    [exitCodes.UNAVAILABLE, 'UNAVAILABLE'],
    [exitCodes.BUG, 'INTERNAL'],
  ];
  test.concurrent.each(final)('exit %i fails the job as %s: not charged, not tried again', async (exit, code) => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { exit }] });
      expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: code });
      expect(endings(jobs, id)).toEqual(['FAILED']);
    });
  });

  test('an error event is the failure that users see: code, message, hint, details', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const error = {
        type: 'error',
        code: 'DATA_INVALID',
        message: 'Two images.',
        retryable: false,
        hint: 'Mend them.',
        details: ['a.png', 'b.png'],
      };
      const { id } = jobs.submit({ steps: ['hello', { say: error }, { exit: 65 }] });
      const failure = { failureCode: 'DATA_INVALID', failureMessage: 'Two images.\nMend them.\na.png\nb.png' };
      expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', ...failure });
    });
  });

  test('a program that is missing is START_FAILED', async () => {
    const kind = { ...scripted, launch: () => ({ command: '/nowhere/python', args: [], env: {}, spec: {} as never }) };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        const message = 'The program of the job could not be started. Run the set-up again.';
        expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'START_FAILED', failureMessage: message });
        expect(endings(jobs, id)).toEqual(['FAILED']);
      },
      { kind },
    );
  });

  test('a process that cannot be made is START_FAILED', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'START_FAILED' });
      },
      { env: () => ({ PATH: '/nowhere' }) },
    );
  });

  test('a kind that cannot launch fails its job with its own words, a defect with none', async () => {
    const errors = [new JobFailure('EXTRA_MISSING', 'Run the set-up.'), new TypeError('/secret/path is undefined')];
    const launch = () => {
      throw errors.shift();
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const [told, defect] = [await jobs.ended(jobs.submit().id), await jobs.ended(jobs.submit().id)];
        expect(told).toMatchObject({ state: 'FAILED', failureCode: 'EXTRA_MISSING', failureMessage: 'Run the set-up.' });
        expect(defect).toMatchObject({ state: 'FAILED', failureCode: 'INTERNAL' });
        expect(defect.failureMessage).not.toContain('secret');
      },
      { kind: { ...scripted, launch } },
    );
  });

  test('what it made is registered in the transaction of its end, or not at all', async () => {
    const kind = {
      ...scripted,
      finish: async () => (tx: Parameters<Awaited<ReturnType<typeof scripted.finish>>>[0]) => {
        tx.run("INSERT INTO audit (at, action, outcome) VALUES (0, 'half', 'OK')" as never);
        throw new Error('UNIQUE constraint failed');
      },
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'INTERNAL', resultJson: null });
        expect(jobs.db.$client.prepare("SELECT count(*) AS n FROM audit WHERE action = 'half'").get()).toEqual({ n: 0 });
      },
      { kind },
    );
  });

  test('a gate that refuses what was made fails the job with its code', async () => {
    const finish = async () => {
      throw new JobFailure('GATE_FAILED', 'Off by 0.2.');
    };
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit();
        expect(await jobs.ended(id)).toMatchObject({ state: 'FAILED', failureCode: 'GATE_FAILED', failureMessage: 'Off by 0.2.' });
        expect(endings(jobs, id)).toEqual(['FAILED']);
      },
      { kind: { ...scripted, finish } },
    );
  });

  test('what its process leaves behind in its group is killed, and holds nothing up', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const { id } = jobs.submit({ steps: ['hello', { grandchild: 'in the group' }, 'ok'] });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      const grandchild = Number(jobs.events(id).find(isType('WARNING'))?.payloadJson.message);
      await until(() => identify(grandchild) === null);
    });
  });

  test('a grandchild that left the group and holds the streams open does not hold the job up for ever', async () => {
    await withJobs(
      async (jobs) => {
        await jobs.start();
        const { id } = jobs.submit({ steps: ['hello', { grandchild: 'alone' }, 'ok'] });
        expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
        const grandchild = Number(jobs.events(id).find(isType('WARNING'))?.payloadJson.message);
        expect(identify(grandchild)).not.toBeNull();
        process.kill(grandchild, 'SIGKILL');
        await until(() => identify(grandchild) === null);
      },
      { lastLinesMs: 500 },
    );
  });

  test('lines that are no events of this attempt are dropped and named in the log', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      const other = JSON.stringify({ v: 1, job: 'another', attempt: 1, n: 1, t: 0, type: 'warning', code: 'W', message: '' });
      const steps: Step[] = [
        'hello',
        { raw: 'no JSON' },
        { raw: `{"v":1,"x":"${'x'.repeat(70_000)}"}` },
        { raw: '{"v":2}' },
        { raw: other },
        'ok',
      ];
      const { id } = jobs.submit({ steps });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      expect(jobs.events(id).filter(isType('WARNING'))).toEqual([]);
      const dropped = "A line of the job's child was dropped: ";
      expect(await logOf(jobs, id)).toEqual([
        `${dropped}line is not JSON`,
        `${dropped}line longer than 65536 bytes`,
        `${dropped}protocol version 2, expected 1`,
      ]);
    });
  });

  test('a child that tells without end is stopped at 100,000 events', async () => {
    await withJobs(async (jobs) => {
      const { id } = jobs.submit({ steps: ['hello', { warnings: 1000 }, { hang: 'with heartbeats' }] });
      jobs.db.update(job).set({ nextSeq: 99_500 }).where(eq(job.id, id)).run();
      await jobs.start();
      await until(() => jobs.job(id).state === 'FAILED');
      expect(jobs.job(id)).toMatchObject({ failureCode: 'LIMIT_EXCEEDED', failureMessage: 'The job told more than 100000 events.' });
      expect(jobs.job(id).nextSeq).toBeLessThan(100_300);
    });
  });

  test('50,000 events and 20,000 log lines are all stored, while the server goes on with other things', async () => {
    await withJobs(async (jobs) => {
      await jobs.start();
      let beats = 0;
      const timer = setInterval(() => {
        beats += 1;
      }, 1);
      const { id } = jobs.submit({ steps: ['hello', { warnings: 50_000 }, { print: 'line', lines: 20_000 }, 'ok'] });
      expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
      clearInterval(timer);
      const messages = jobs.events(id).filter(isType('WARNING'));
      expect(messages.map((e) => e.payloadJson.message)).toEqual(Array.from({ length: 50_000 }, (_, i) => `warning ${i + 1}`));
      expect(await logOf(jobs, id)).toEqual(Array.from({ length: 20_000 }, (_, i) => `line ${i + 1}`));
      // At most 100 events are stored between two turns of the event loop.
      expect(beats).toBeGreaterThan(200);
    });
  });
});
