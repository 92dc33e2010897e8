import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { watchJob } from '../src/cli/watch.ts';
import { openDatabase } from '../src/db.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import type { Failure } from '../src/jobs/states.ts';
import { type JobState, job, jobEvent } from '../src/jobs/tables.ts';
import { opaqueId } from '../src/naming.ts';
import type { RunningServer } from '../src/server.ts';
import { evaluation } from '../src/training/tables.ts';
import { appendStudyEvent, type StudyEventPayloads } from '../src/tuning/events.ts';
import { removeStudyEvents } from '../src/tuning/sweep.ts';
import { type StudyEvent, study, studyEvent } from '../src/tuning/tables.ts';
import type { Step } from './support/child.ts';
import { nobody, type Submitted, submit, until, withJobServer } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { storeObjects } from './support/objects.ts';
import { type Child, withChild } from './support/process.ts';
import { adminPassword, client, type TestServer, withFolder, withServer } from './support/server.ts';

const kinds = kindsOf(scripted);

const idOf = async ({ graphql }: Pick<TestServer, 'graphql'>, token: string): Promise<string> =>
  (await graphql('{ jobs(first: 1) { nodes { id } } }', {}, token)).data.jobs.nodes[0].id;

const withoutTime = (lines: string[]): string[] => lines.map((line) => line.replace(/^\d\d:\d\d:\d\d {2}/, ''));

/** What is written to a terminal, or to a file. */
function outputOf(isTTY: boolean) {
  const written: string[] = [];
  const output = { isTTY, columns: 60, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
  return {
    output,
    written,
    lines: () => withoutTime(written.join('').split('\n').slice(0, -1)),
  };
}

/** A job on a server, followed to its end. */
async function follow(submitted: Submitted, isTTY: boolean, during: (server: TestServer, written: string[]) => unknown = () => {}) {
  const { output, written, lines } = outputOf(isTTY);
  const succeeded = await withServer(
    async (server) => {
      const token = await server.as('VIEWER');
      submit(server.services.db, { folder: server.dataDir, ...submitted });
      const watched = watchJob({ url: server.url, accessToken: async () => token }, await idOf(server, token), output);
      await during(server, written);
      return watched;
    },
    {},
    kinds,
  );
  return { succeeded, written, lines: lines() };
}

describe('watch', () => {
  test('prints phases, epochs with their metrics, files, gates, warnings, and the end', async () => {
    const numbers = {
      problems: [],
      inputs: 'VALIDATION',
      images: 4,
      tolerance: 1e-4,
      largestLogit: 9.25,
      largestDifference: 1.23456e-6,
      beyondTolerance: 0,
      top1Differ: 0,
      top1DifferBeyondMargin: 0,
      batches: [],
    };
    const steps: Step[] = [
      'hello',
      { phase: 'training' },
      { phase: 'training' },
      { epoch: 1 },
      { epoch: 3 },
      { say: { type: 'artifact', kind: 'ONNX', file: 'm.onnx', sha256: '0'.repeat(64), sizeBytes: 3 * 2 ** 20, meta: {} } },
      { say: { type: 'gate', gate: 'CONVERSION', file: 'm.onnx', numbers } },
      { say: { type: 'warning', code: 'SLOW', message: 'a\u001b[31mred\nline\u202e' } },
      'ok',
    ];
    const { succeeded, lines } = await follow({ steps }, false);
    expect(succeeded).toBe(true);
    expect(lines).toEqual([
      expect.stringMatching(/^Job \S+: IMPORT_MODEL$/),
      'QUEUED',
      'RUNNING, attempt 1',
      'phase training',
      'epoch 1/9  val.loss 1  0.0 s  best',
      'epoch 3/9  val.loss 0.3333  0.0 s  best',
      'made ONNX, 3.0 MiB',
      'gate CONVERSION  images 4  tolerance 0.0001  largestLogit 9.25  largestDifference 0.000001235  beyondTolerance 0  top1Differ 0  top1DifferBeyondMargin 0',
      // Nothing in a message steers the terminal.
      'warning SLOW: a [31mred line ',
      'SUCCEEDED',
    ]);
  });

  test('a job that fails, after an attempt that crashed, says why and is no success', async () => {
    const error = { type: 'error', code: 'DATA_INVALID', message: 'No images.', retryable: false, hint: 'Add some.', details: ['a.txt'] };
    const { succeeded, lines } = await follow({ steps: [{ signal: 'SIGKILL', attempt: 1 }, 'hello', { say: error }, { exit: 65 }] }, false);
    expect(succeeded).toBe(false);
    expect(lines.slice(2)).toEqual([
      'RUNNING, attempt 1',
      'attempt 1 CRASHED  CRASHED: The process of the job was killed by SIGKILL.',
      'QUEUED again',
      'RUNNING, attempt 2',
      'FAILED  DATA_INVALID: No images.',
      'Add some.',
      'a.txt',
    ]);
  });

  test('a job that is cancelled is no success', async () => {
    const { succeeded, lines } = await follow(
      { steps: ['hello', { hang: 'silent' }] },
      false,
      async ({ services: { db, jobKinds } }, written) => {
        await until(() => written.join('').includes('RUNNING'));
        cancelJob(db, jobKinds, nobody, db.$client.prepare('SELECT id FROM job').pluck().get() as string);
      },
    );
    expect([succeeded, lines.at(-1)]).toEqual([false, 'CANCELLED']);
  });

  test('on a terminal the progress stands in the last line, within its width, and is gone at the end', async () => {
    const speed = {
      total: 1248,
      done: 312,
      epoch: 2,
      epochs: 10,
      metrics: { 'train.loss': 0.30049 },
      itemsPerSecond: 73.11,
      etaMs: 80_400,
    };
    const steps: Step[] = ['hello', { phase: 'training' }, { wait: 'go', moving: speed }, { epoch: 1 }, 'ok'];
    const { succeeded, written } = await follow({ steps }, true, async ({ dataDir }, sofar) => {
      await until(() => sofar.join('').includes('epoch 2/10, training'));
      writeFileSync(join(dataDir, 'go'), '');
    });
    expect(succeeded).toBe(true);
    const whole = '[#####...............] epoch 2/10, training 312/1248  73.1/s  80 s left  train.loss 0.3005';
    expect(written).toContain(whole.slice(0, 59));
    const epoch = written.findIndex((text) => text.includes('epoch 1/9'));
    expect(written.slice(epoch - 1, epoch + 2)).toEqual([
      '\r\x1b[K',
      expect.stringContaining('epoch 1/9'),
      expect.stringMatching(/^\[#####/),
    ]);
    expect(written.at(-1)).toBe('\r\x1b[K');
  });

  test('a proxy that refuses the WebSocket is named, and the job is followed when it is let through', async () => {
    const { output, written, lines } = outputOf(false);
    await withServer(
      async (server) => {
        const token = await server.as('VIEWER');
        submit(server.services.db, { steps: ['hello', 'ok'] });
        let open = false;
        const { port } = new URL(server.url);
        const proxy = createServer(async (req, res) => {
          const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
          const answer = await fetch(`${server.url}${req.url}`, {
            method: req.method,
            headers,
            body: req.method === 'POST' ? await text(req) : undefined,
          });
          res.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
        }).on('upgrade', (req, socket: Socket, head) => {
          if (!open) return socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
          const through = connect(Number(port), '127.0.0.1');
          const lines = [`GET ${req.url} HTTP/1.1`];
          for (let i = 0; i < req.rawHeaders.length; i += 2) lines.push(`${req.rawHeaders[i]}: ${req.rawHeaders[i + 1]}`);
          through.write(`${lines.join('\r\n')}\r\n\r\n`);
          through.write(head);
          socket.pipe(through).pipe(socket);
        });
        proxy.listen(0, '127.0.0.1');
        await once(proxy, 'listening');
        try {
          const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
          const watched = watchJob({ url, accessToken: async () => token }, await idOf(server, token), output);
          await until(() => written.join('').includes('WebSocket'));
          open = true;
          expect(await watched).toBe(true);
        } finally {
          proxy.close();
          proxy.closeAllConnections();
        }
      },
      {},
      kinds,
    );
    expect(lines().filter((line) => line.includes('WebSocket'))).toEqual([
      expect.stringMatching(/^The server answers, but the WebSocket connection to ws:.* was refused\./),
    ]);
    expect(lines().at(-1)).toBe('SUCCEEDED');
  });

  test('of a study prints each trial with its values, over a retry, whether its id or that of one of its jobs is given', async () => {
    await withServer(async (server) => {
      storeObjects(server);
      const { db, bus } = server.services;
      const jobs = ['first', 'second'];
      const about = {
        kind: 'TUNE',
        specJson: { studyId: 'Study' },
        state: 'FAILED',
        slotsNeeded: 0,
        priority: 0,
        createdAt: Date.now(),
      } as const;
      for (const id of jobs)
        db.insert(job)
          .values({ id, ...about })
          .run();
      const tell = <T extends StudyEvent['type']>(type: T, payload: StudyEventPayloads[T]) => appendStudyEvent(db, 'Study', type, payload);
      const move = (id: string, state: JobState, failure: Failure | null = null, paused = false) => {
        db.update(study).set({ jobId: id }).run();
        db.update(job).set({ state }).where(eq(job.id, id)).run();
        tell('STATE', { state, paused, jobId: id, failure });
      };
      const ended = {
        generation: 0,
        params: {},
        outcome: 'COMPLETE',
        failure: null,
        values: [0.97222, 83_417_088],
        epochs: 2,
        copyOf: null,
      } as const;
      move('first', 'RUNNING');
      tell('TRIAL_ENQUEUED', { number: 0, generation: 0, params: {}, jobId: 'Job', stopAfterEpoch: 1, registers: false });
      tell('RUNG_ENDED', { number: 0, generation: 0, values: [0.5, 83_417_088], epochs: 1 });
      tell('PROMOTION', { number: 0, generation: 0, values: [0.5, 83_417_088], epochs: 1, jobId: 'Job', stopAfterEpoch: null });
      tell('TRIAL_ENDED', { number: 0, ...ended, values: [...ended.values] });
      move('first', 'FAILED', { code: 'TRIAL_FAILED', message: 'Trial 1 failed.' });
      move('second', 'RUNNING');
      move('second', 'RUNNING', null, true);
      const token = await server.as('VIEWER');
      const watched = ['Job:first', 'Study:Study'].map((id) => {
        const { output, lines } = outputOf(false);
        const end = watchJob({ url: server.url, accessToken: async () => token }, Buffer.from(id).toString('base64url'), output);
        return { end, lines };
      });
      for (const { lines } of watched) await until(() => lines().includes('PAUSED'));
      move('second', 'RUNNING');
      tell('EXTENDED', { generations: 2, trialsWanted: 11 });
      tell('TRIAL_ENDED', { number: 1, ...ended, values: [...ended.values], copyOf: 0 });
      tell('TRIAL_ENDED', { number: 2, ...ended, outcome: 'WORST', values: null, failure: { code: 'DIVERGED', message: 'No number.' } });
      tell('TRIAL_ENDED', { number: 3, ...ended, outcome: 'WORST', values: null });
      tell('FRONT_CHANGED', { front: [0] });
      tell('GENERATION_ENDED', { generation: 0, trials: 3 });
      const registration = { number: 0, generation: 0, jobId: 'Job' } as const;
      tell('REGISTRATION_ENDED', { ...registration, state: 'SUCCEEDED', modelVersionId: 'ModelVersion' });
      tell('REGISTRATION_ENDED', { ...registration, state: 'FAILED', modelVersionId: null });
      move('second', 'SUCCEEDED');
      bus.wake('jobEvent', 'second');
      const [first, second] = jobs.map((id) => opaqueId('Job', id));
      for (const { end, lines } of watched) {
        expect(await end).toBe(true);
        expect(lines()).toEqual([
          `Study ${opaqueId('Study', 'Study')}`,
          `RUNNING, job ${first}`,
          'trial 0, generation 0  waits after epoch 1  0.5  83420000',
          'trial 0, generation 0  continues after epoch 1  0.5  83420000',
          'trial 0, generation 0  COMPLETE  0.9722  83420000',
          'FAILED  TRIAL_FAILED: Trial 1 failed.',
          `RUNNING, job ${second}`,
          'PAUSED',
          'RUNNING',
          'extended by 2 generations, to 11 trials',
          'trial 1, generation 0  COMPLETE (copy of 0)  0.9722  83420000',
          'trial 2, generation 0  WORST  DIVERGED: No number.',
          'trial 3, generation 0  WORST  cancelled',
          'best of those that have ended: trial 0',
          'generation 0 has ended, 3 trials so far',
          'trial 0, generation 0  IMPORT_DATASET SUCCEEDED: version 1 of one',
          'trial 0, generation 0  IMPORT_DATASET FAILED',
          'SUCCEEDED',
        ]);
      }

      db.update(job).set({ endedAt: 1 }).where(eq(job.id, 'second')).run();
      await removeStudyEvents(db, Date.now() + 1000);
      const { output, written } = outputOf(false);
      expect(await watchJob({ url: server.url, accessToken: async () => token }, String(second), output, true)).toBe(true);
      expect(written.map((line) => JSON.parse(line))).toEqual([{ studyId: opaqueId('Study', 'Study'), state: 'SUCCEEDED' }]);

      // Deleted while it is followed: the connection is not what is lost.
      move('second', 'RUNNING');
      const session = { url: server.url, accessToken: async () => token };
      const last = outputOf(false);
      const gone = watchJob(session, opaqueId('Study', 'Study'), last.output);
      gone.catch(() => {});
      await until(() => last.lines().length === 2);
      for (const table of [studyEvent, study]) db.delete(table).run();
      bus.wake('jobChanged', 'second');
      await expect(gone).rejects.toThrow(/^The study was deleted\.$/);
      expect(last.lines()).toEqual([`Study ${opaqueId('Study', 'Study')}`, `RUNNING, job ${second}`]);
    });
  });

  test('of a job whose events have been removed prints how it has ended', async () => {
    await withServer(async (server) => {
      const { db } = server.services;
      const { id } = submit(db);
      db.update(job).set({ state: 'FAILED', startedAt: 1, endedAt: 1 }).where(eq(job.id, id)).run();
      db.delete(jobEvent).run();
      const { output, lines } = outputOf(false);
      const token = await server.as('VIEWER');
      const session = { url: server.url, accessToken: async () => token };
      expect(await watchJob(session, opaqueId('Job', id), output)).toBe(false);
      expect(lines()).toEqual([`Job ${opaqueId('Job', id)}: IMPORT_MODEL`, 'FAILED. Its events have been removed.']);
    });
  });

  test('a job that there is not, a bad token, and no server are errors at once', async () => {
    const { output, written } = outputOf(false);
    await withServer(async (server) => {
      const token = await server.as('VIEWER');
      const watching = (url: string, accessToken: string, id = opaqueId('Job', 'nobody')) =>
        watchJob({ url, accessToken: async () => accessToken }, id, output);
      for (const type of ['Job', 'Study'] as const) {
        const gone = watching(server.url, token, opaqueId(type, 'nobody'));
        await expect(gone).rejects.toThrow('There is no such job or study: it may have been deleted.');
      }
      await expect(watching(server.url, 'bad')).rejects.toThrow('access token');
      await expect(watching('http://127.0.0.1:1', token)).rejects.toThrow('There is no server at http://127.0.0.1:1.');
    });
    expect(written).toEqual([]);
  });
});

/** The command with this job, while it runs. */
const withWatch = <T>(id: string, url: string, token: string, use: (child: Child) => Promise<T>): Promise<T> =>
  withChild(['src/main.ts', 'watch', id, '--url', url], { WHETSTONE_TOKEN: token }, use);

test('`watch <job>` outlives a kill -9 of the server: each event is printed once, and it exits with 0', { timeout: 120_000 }, async () => {
  await withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    submit(db, { steps: ['hello', { epoch: 1 }, { epoch: 2 }, { wait: 'never', attempt: 1 }, { epoch: 3 }, 'ok'], folder });
    close();
    await withJobServer(folder, async ({ url, kill }) => {
      const server = client({ url } as RunningServer, folder);
      const token = await server.admin();
      await withWatch(await idOf(server, token), url, token, async ({ line, lines, exit }) => {
        await line((text) => text.includes('epoch 2/9'));
        await kill();
        const { code } = await withJobServer(folder, () => exit, new URL(url).port);
        expect(code).toBe(0);
        expect(withoutTime(lines).slice(1)).toEqual([
          'QUEUED',
          'RUNNING, attempt 1',
          'epoch 1/9  val.loss 1  0.0 s  best',
          'epoch 2/9  val.loss 0.5  0.0 s  best',
          'The connection is lost. Trying again.',
          'attempt 1 LOST  LOST: The server died while the attempt ran.',
          'QUEUED again',
          'RUNNING, attempt 2',
          'epoch 3/9  val.loss 0.3333  0.0 s  best',
          'SUCCEEDED',
        ]);
      });
    });
  });
});

test('`watch <job>` shows what an evaluation has measured', async () => {
  await withServer(
    async (server) => {
      const token = await server.as('VIEWER');
      storeObjects(server);
      const { id: jobId } = submit(server.services.db, { folder: server.dataDir, steps: ['hello', 'ok'] });
      const measured = { modelVersionId: 'ModelVersion', datasetVersionId: 'DatasetVersion', split: 'val', engine: 'torch' } as const;
      const metricsJson = { images: 43, top1: 0.930232 };
      server.services.db
        .insert(evaluation)
        .values({ id: 'E', jobId, ...measured, metricsJson, createdAt: Date.now() })
        .run();
      const { output, written } = outputOf(false);
      expect(
        await watchJob({ url: server.url, accessToken: async () => token }, Buffer.from(`Job:${jobId}`).toString('base64url'), output),
      ).toBe(true);
      expect(written.join('').trimEnd().split('\n').at(-1)).toBe('result: top-1 93.02 % on 43 images of dataset one version 1, split VAL');
    },
    {},
    kinds,
  );
});

test('`watch <job>` with a refresh token gets new access tokens as long as the job takes, and logs out', async () => {
  await withServer(
    async (server) => {
      const token = await server.as('VIEWER');
      submit(server.services.db, { folder: server.dataDir, steps: ['hello', 'ok'] });
      const { refreshToken } = await server.login('viewer', adminPassword);
      const env = { WHETSTONE_TOKEN: 'dead', WHETSTONE_REFRESH_TOKEN: refreshToken };
      await withChild(['src/main.ts', 'watch', await idOf(server, token), '--url', server.url], env, async ({ lines, exit }) => {
        expect([(await exit).code, withoutTime(lines).at(-1)]).toEqual([0, 'SUCCEEDED']);
      });
      const { data } = await server.graphql('{ viewer { sessions { current } } }', {}, token);
      expect(data.viewer.sessions).toEqual([{ current: true }]);
    },
    {},
    kinds,
  );
});

test('`watch <job>` exits with 1 when the job has not succeeded, with 2 when it cannot be followed: no job, a dead token', async () => {
  await withServer(
    async (server) => {
      const token = await server.as('VIEWER');
      submit(server.services.db, { steps: [{ exit: 64 }] });
      const id = await idOf(server, token);
      const ended = (job: string, bearer: string) =>
        withWatch(job, server.url, bearer, async ({ lines, exit }) => [(await exit).code, withoutTime(lines).at(-1)]);
      expect(await ended(id, token)).toEqual([1, 'FAILED  SPEC_INVALID: The job was specified wrongly.']);
      expect(await ended(Buffer.from('Job:nobody').toString('base64'), token)).toEqual([
        2,
        'There is no such job or study: it may have been deleted.',
      ]);
      expect(await ended(id, 'dead')).toEqual([2, 'The access token is invalid or expired. Refresh it, or log in again.']);

      // A session that ends while the job runs, as when its token expires.
      submit(server.services.db, { steps: ['hello', { wait: 'never' }], folder: server.dataDir });
      server.services.bus.wake('queueChanged', '');
      const running = await idOf(server, token);
      const session = await server.login('viewer', adminPassword);
      await withWatch(running, server.url, session.accessToken, async ({ line, lines, exit }) => {
        await line((text) => text.includes('RUNNING'));
        const logout = 'mutation ($i: LogoutInput!) { logout(input: $i) { userErrors { message } } }';
        await server.graphql(logout, { i: { refreshToken: session.refreshToken } });
        expect([(await exit).code, lines.at(-1)]).toEqual([
          2,
          expect.stringMatching(/^The access token has expired; the job is not affected\. .*Without WHETSTONE_TOKEN the command asks/),
        ]);
        expect(lines).not.toContain('The connection is lost. Trying again.');
      });
    },
    {},
    kinds,
  );
});
