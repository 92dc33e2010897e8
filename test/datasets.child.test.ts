import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { importCommand } from '../src/datasets/import/launch.ts';
import { files } from '../src/datasets/import/outputs.ts';
import { ChildError, createChildAttempt, lastEventOf, type Said, Stopped, stateIndex, stops } from '../src/jobs/childio.ts';
import { EVENT_LINE_BYTES_MAX, PROTOCOL_VERSION } from '../src/jobs/protocol.ts';
import { digitFolders, writeZip } from './support/images.ts';
import { asChild, inProcess, type Started, specOf, start, withImport } from './support/imports.ts';
import { until } from './support/jobs.ts';
import { withFolder } from './support/server.ts';

const classes = await digitFolders([0, 1], 6);
const linux = existsSync('/proc/self/limits');

/** A child that waits for the first byte of its zip, which never comes. */
async function withWaiting<T>(use: (started: Started & { workDir: string }) => Promise<T>): Promise<T> {
  return withFolder(async (folder) => {
    const zip = join(folder, 'pipe.zip');
    execFileSync('mkfifo', [zip]);
    const workDir = join(folder, 'work');
    mkdirSync(workDir);
    const started = start(zip, workDir);
    try {
      await started.event(({ type }) => type === 'phase');
      return await use({ ...started, workDir });
    } finally {
      started.child.kill('SIGKILL');
      await started.child.ended;
    }
  });
}

describe('a child', () => {
  test('says hello, what it does, what it has made, and the end; it exits with 0', () =>
    withImport(
      classes,
      ({ events, exitCode, done }) => {
        expect(events[0]).toMatchObject({
          type: 'hello',
          versions: { node: process.versions.node, sharp: expect.any(String) },
          resumed: null,
        });
        const told = events.filter(({ type }) => type !== 'batch' && type !== 'hello');
        expect(told).toMatchObject([
          { type: 'phase', phase: 'extraction', total: null },
          { type: 'phase', phase: 'extraction', total: 12 },
          { type: 'phase', phase: 'decoding', total: 12 },
          { type: 'artifact', kind: 'MANIFEST', file: files.manifest },
          { type: 'artifact', kind: 'THUMBNAILS', file: files.thumbnails },
          { type: 'artifact', kind: 'IMAGES', file: files.images },
          { type: 'done', status: 'ok' },
        ]);
        expect(done?.result).toEqual({ items: 12, classes: 2, contentHash: expect.stringMatching(/^[0-9a-f]{64}$/) });
        expect(exitCode).toBe(0);
        expect((events as { n?: number }[]).map(({ n }) => n)).toEqual(events.map((_, i) => i + 1));
      },
      { run: asChild },
    ));

  test('makes the same as in this process', () =>
    withImport(
      classes,
      (child) =>
        withImport(classes, (here) => {
          for (const name of [files.manifest, files.items, files.thumbnails, files.images, files.summary])
            expect(child.text(name)).toBe(here.text(name));
        }),
      { run: asChild },
    ));

  test.each([
    ['cancel', 'cancelled'],
    ['suspend', 'suspended'],
  ] as const)('told to %s it stops, says so, exits with 75 and leaves nothing', (command, status) =>
    withImport(
      classes,
      ({ done, exitCode, workDir }) => {
        expect(done).toMatchObject({ status, result: {} });
        expect(exitCode).toBe(75);
        expect(readdirSync(workDir)).toEqual([]);
      },
      { run: asChild, command },
    ),
  );

  test('shows by its heartbeat that it stands still', () =>
    withWaiting(async ({ event }) => {
      const beat = await event(({ type }) => type === 'heartbeat');
      expect(beat).toMatchObject({ phase: 'extraction', step: 1, rssBytes: expect.any(Number) });
      expect(await event((e) => e.type === 'heartbeat' && e.n > beat.n)).toMatchObject({ step: 1 });
    }));

  test('ends itself when the server is gone, also while it waits', () =>
    withFolder(async (folder) => {
      const zip = join(folder, 'pipe.zip');
      execFileSync('mkfifo', [zip]);
      const spec = specOf(zip, {});
      const { command, args } = importCommand(spec, folder);
      const child = spawn(command, args, { cwd: folder, detached: true, stdio: ['pipe', 'ignore', 'ignore', 'pipe'] });
      const [stdin, , , events] = child.stdio as unknown as [Writable, null, null, Readable];
      stdin.write(`${JSON.stringify({ v: PROTOCOL_VERSION, job: 'a', attempt: 1, workDir: folder, spec })}\n`);
      await once(events, 'data');
      stdin.end();
      expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
    }));

  test('ends itself when its events and its log are closed before its stdin is', () =>
    withFolder(async (folder) => {
      const zip = join(folder, 'pipe.zip');
      execFileSync('mkfifo', [zip]);
      const spec = specOf(zip, {});
      const { command, args } = importCommand(spec, folder);
      const child = spawn(command, args, { cwd: folder, detached: true, stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
      const exit = once(child, 'exit');
      try {
        const [stdin, ...outputs] = child.stdio as unknown as [Writable, Readable, Readable, Readable];
        stdin.write(`${JSON.stringify({ v: PROTOCOL_VERSION, job: 'a', attempt: 1, workDir: folder, spec })}\n`);
        await once(outputs[2], 'data');
        for (const output of outputs) output.destroy();
        // Its next heartbeat finds nobody.
        await until(() => child.exitCode !== null || child.signalCode !== null);
        expect(await exit).toEqual([null, 'SIGKILL']);
      } finally {
        child.kill('SIGKILL');
      }
    }));

  test('refuses a specification that is not for it with exit code 64', () =>
    withImport(classes, ({ exitCode, events }) => expect({ exitCode, events }).toEqual({ exitCode: 64, events: [] }), {
      run: asChild,
      task: 'SEGMENTATION' as never,
    }));

  test.runIf(linux)('has its limits, a minimal environment, and no core file', () =>
    withWaiting(async ({ child }) => {
      const limits = readFileSync(`/proc/${child.pid}/limits`, 'utf8');
      expect(limits).toMatch(new RegExp(`Max data size +${5.5 * 2 ** 30} `));
      expect(limits).toMatch(new RegExp(`Max file size +${2 ** 40} `));
      expect(limits).toMatch(/Max cpu time +129600 /);
      expect(limits).toMatch(/Max core file size +0 /);
      const names = readFileSync(`/proc/${child.pid}/environ`, 'utf8')
        .split('\0')
        .map((line) => line.split('=')[0]);
      expect(names.filter(Boolean).sort()).toEqual(['PATH', 'PWD', 'UV_THREADPOOL_SIZE']);
    }),
  );

  test('can write nothing outside of its work folder', () =>
    withFolder(async (folder) => {
      const [allowed, other] = ['allowed', 'other'].map((name) => join(folder, name)) as [string, string];
      for (const path of [allowed, other]) mkdirSync(path);
      const { child, event } = start(await writeZip(join(folder, 'a.zip'), classes), other, {}, allowed);
      expect(await event(({ type }) => type === 'error')).toMatchObject({ code: 'INTERNAL' });
      expect((await child.ended).exitCode).toBe(70);
      expect(readdirSync(other)).toEqual([]);
    }));

  test('cannot write a larger file than it may', () =>
    withImport(
      classes,
      ({ error, exitCode, workDir }) => {
        expect(error).toMatchObject({ code: 'LIMIT_EXCEEDED', message: 'The job would write a larger file than it may.' });
        expect(exitCode).toBe(65);
        expect(readdirSync(workDir)).toEqual([]);
      },
      { run: asChild, limits: { outputBytesMax: 512 } },
    ));
});

describe('last words', () => {
  const wordsOf = (error: unknown) => {
    const { event, exitCode } = lastEventOf(error);
    return { ...event, exitCode };
  };
  const errno = (code: string) => Object.assign(new Error(`${code}: open '/secret/path'`), { code });

  test.each([
    [new Stopped('suspended'), { type: 'done', status: 'suspended', exitCode: 75 }],
    [
      new ChildError('DATA_INVALID', 'It is.', ['a']),
      { code: 'DATA_INVALID', message: 'It is.', details: ['a'], retryable: false, exitCode: 65 },
    ],
    [errno('ENOSPC'), { code: 'DISK_FULL', message: 'The disk is full: free some space.', retryable: true, exitCode: 74 }],
    [errno('EIO'), { code: 'IO', retryable: true, exitCode: 74 }],
    [errno('EFBIG'), { code: 'LIMIT_EXCEEDED', retryable: false, exitCode: 65 }],
    [errno('EACCES'), { code: 'INTERNAL', message: expect.not.stringContaining('secret'), exitCode: 70 }],
    ['a thrown text', { code: 'INTERNAL', exitCode: 70 }],
  ])('%s', (error, words) => expect(wordsOf(error)).toMatchObject(words));

  test('fit into a line, whatever the files are called', () => {
    const { event } = lastEventOf(
      new ChildError(
        'DATA_INVALID',
        'x'.repeat(10_000),
        Array.from({ length: 100 }, () => '𝄞'.repeat(600)),
      ),
    );
    expect(Buffer.byteLength(JSON.stringify(event))).toBeLessThan(EVENT_LINE_BYTES_MAX);
    expect((event as { details: string[] }).details.length).toBeGreaterThan(10);
  });
});

describe('a child’s voice', () => {
  test('tells ticks at most 4 times a second, with the rate and what is left', () => {
    const said: Said[] = [];
    const state = new Int32Array(2);
    const child = createChildAttempt(specOf('a', {}), 'w', state, (event) => said.push(event));
    child.phase('decoding', 1000);
    for (let i = 0; i < 500; i += 1) child.advance(2);
    const ticks = said.filter(({ type }) => type === 'batch');
    expect(ticks[0]).toMatchObject({ phase: 'decoding', step: 3, done: 2, total: 1000, etaMs: expect.any(Number) });
    expect(ticks.length).toBeLessThan(3);
    expect(Atomics.load(state, stateIndex.step)).toBe(1001);
  });

  test('hears a command at the next step', () => {
    const state = new Int32Array(2);
    const child = createChildAttempt(specOf('a', {}), 'w', state, () => {});
    child.checkStop();
    Atomics.store(state, stateIndex.stop, stops.indexOf('cancel'));
    expect(() => child.checkStop()).toThrow('cancelled');
  });
});

test('in this process an import that was told to stop leaves nothing either', () =>
  withImport(classes, ({ done, workDir }) => expect([done?.status, readdirSync(workDir)]).toEqual(['cancelled', []]), {
    run: inProcess,
    command: 'cancel',
  }));
