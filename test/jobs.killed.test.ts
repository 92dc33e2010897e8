import { existsSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { describe, expect, test, vi } from 'vitest';
import { openDatabase } from '../src/db.ts';
import { readLog } from '../src/jobs/logs.ts';
import type { RunningServer } from '../src/server.ts';
import type { Step } from './support/child.ts';
import { processesIn, submit, until, withJobServer } from './support/jobs.ts';
import { client, withFolder } from './support/server.ts';
import { withConnection } from './support/socket.ts';

interface Told {
  seq: number;
  attempt: number;
  type: string;
  epoch?: number;
  state?: string;
}

const jobEvents = `subscription ($id: ID!, $after: SafeInt!) {
  jobEvents(id: $id, after: $after) {
    seq attempt type: __typename ... on JobStateEvent { state } ... on JobEpochEvent { epoch } ... on JobCheckpointEvent { epoch }
  }
}`;

describe('kill -9 of the server', () => {
  interface Moment {
    name: string;
    steps: Step[];
    finishWaits?: string;
    /** When it is killed: an event has been told, or a file is there. */
    told?: (event: Told) => boolean;
    there?: string;
    /** Attempt and number of each epoch in the end. */
    epochs: [number, number][];
    /** What each attempt prints. The kill waits for the first one's: output in a pipe that the server has not read dies with both. */
    lines: [string[], string[]];
  }
  const never: Step = { wait: 'never', attempt: 1 };
  const moments: Moment[] = [
    {
      name: 'before its child has said hello',
      steps: [never, 'hello', { epoch: 1 }, 'ok'],
      told: (e) => e.state === 'RUNNING',
      epochs: [[2, 1]],
      lines: [[], []],
    },
    {
      name: 'in the middle of an epoch',
      steps: ['hello', { print: 'a line' }, { phase: 'training' }, never, { epoch: 1 }, 'ok'],
      told: (e) => e.type === 'JobPhaseEvent',
      epochs: [[2, 1]],
      lines: [['a line'], ['a line']],
    },
    {
      name: 'behind a checkpoint',
      steps: ['hello', { epoch: 1 }, { print: 'a line' }, { epoch: 2 }, never, { epoch: 3 }, { print: 'the end' }, 'ok'],
      told: (e) => e.type === 'JobCheckpointEvent' && e.epoch === 2,
      epochs: [
        [1, 1],
        [1, 2],
        [2, 3],
      ],
      lines: [['a line'], ['a line', 'the end']],
    },
    {
      name: 'while its result is being registered',
      steps: ['hello', { epoch: 1 }, { print: 'the end' }, 'ok'],
      finishWaits: 'never',
      there: 'finishing',
      epochs: [[1, 1]],
      lines: [['the end'], ['the end']],
    },
  ];

  test.each(moments)(
    '$name: no orphan, nothing charged, and the job goes on',
    async ({ steps, finishWaits, told, there, epochs, lines }) => {
      await withFolder(async (folder) => {
        const { db, close } = openDatabase(folder);
        const { id } = submit(db, { steps, folder, finishWaits });
        close();
        let token = '';
        /** The events behind `after`, until `isLast`, as a client of the server receives them. */
        const receive = (url: string, after: number, isLast: (received: () => Told[]) => Promise<unknown>) =>
          withConnection(url, token, async (socket) => {
            const { data } = await client({ url } as RunningServer, folder).graphql('{ jobs(first: 1) { nodes { id } } }', {}, token);
            socket.send({ type: 'subscribe', id: 'e', payload: { query: jobEvents, variables: { id: data.jobs.nodes[0].id, after } } });
            const received = () => socket.messages.flatMap((m) => (m.type === 'next' ? (m.payload.data.jobEvents as Told) : []));
            await isLast(received);
            return received();
          });

        const log = () => Array.fromAsync(readLog(folder, id, 0));
        const before = await withJobServer(folder, async ({ url, kill }) => {
          token = await client({ url } as RunningServer, folder).admin();
          const received = await receive(url, 0, async (sofar) => {
            await until(() => (there ? existsSync(join(folder, there)) : sofar().some(told as never)));
            await until(async () => (await log()).length === lines[0].length);
          });
          await kill();
          return received;
        });
        await vi.waitUntil(() => processesIn(folder).length === 0, { timeout: 15_000, interval: 10 });

        const isEnd = ({ state }: Told) => ['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(state ?? '');
        const after = await withJobServer(folder, ({ url }) =>
          receive(url, before.at(-1)?.seq ?? 0, (sofar) => until(() => sofar().some(isEnd))),
        );
        const received = [...before, ...after];
        expect(received.map((e) => e.seq)).toEqual(received.map((_, i) => i + 1));
        expect(received.at(-1)?.state).toBe('SUCCEEDED');
        expect(received.filter((e) => e.type === 'JobEpochEvent').map((e) => [e.attempt, e.epoch])).toEqual(epochs);

        const file = new Sqlite(join(folder, 'whetstone.db'), { readonly: true });
        expect(file.pragma('integrity_check', { simple: true })).toBe('ok');
        expect(file.prepare('SELECT number, state, charged FROM attempt WHERE jobId = ? ORDER BY number').raw().all(id)).toEqual([
          [1, 'LOST', 0],
          [2, 'SUCCEEDED', 0],
        ]);
        expect(file.prepare('SELECT count(*) FROM job_event WHERE jobId = ?').pluck().get(id)).toBe(received.length);
        file.close();
        const kept = await log();
        expect(kept.map(({ n }) => n)).toEqual(kept.map((_, i) => i + 1));
        expect(kept.map(({ text }) => text)).toEqual(lines.flat());
      });
    },
  );
});
