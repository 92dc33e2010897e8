import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, test, vi } from 'vitest';
import { stopMs } from '../src/stopTimes.ts';
import { endings, isType, withJobs } from './support/jobs.ts';

vi.mock('../src/stopTimes.ts', async (original) => {
  const real = await original<typeof import('../src/stopTimes.ts')>();
  return { ...real, stopMs: { ...real.stopMs, jobs: 1000 } };
});

test('the parts of a stop take less than its limit together', async () => {
  const { stopMs: real } = await vi.importActual<typeof import('../src/stopTimes.ts')>('../src/stopTimes.ts');
  const { limit, sockets, jobs, inferenceHost, ...after } = real;
  const sum = Object.values(after).reduce((total, ms) => total + ms, Math.max(sockets, jobs, inferenceHost));
  expect(sum).toBeLessThan(limit);
});

test('a stop does not wait for a database that cannot be written: the next server finds the job and continues it', () =>
  withJobs(async (jobs) => {
    expect(stopMs.jobs).toBe(1000);
    const first = await jobs.start();
    const { id } = jobs.submit({ steps: ['hello', { phase: 'training' }, { hang: 'with heartbeats', attempt: 1 }, 'ok'] });
    await jobs.event(id, isType('PHASE'));
    const other = new Sqlite(join(jobs.folder, 'whetstone.db'));
    other.exec('BEGIN IMMEDIATE');
    await first.stop();
    expect(endings(jobs, id)).toEqual(['RUNNING']);
    other.close();
    await jobs.start();
    expect((await jobs.ended(id)).state).toBe('SUCCEEDED');
    expect(endings(jobs, id)).toEqual(['LOST', 'SUCCEEDED']);
  }));
