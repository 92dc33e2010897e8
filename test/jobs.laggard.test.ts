import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDatabase } from '../src/db.ts';
import type { RunningServer } from '../src/server.ts';
import { submit, withJobServer } from './support/jobs.ts';
import { client, withFolder } from './support/server.ts';
import { type Socket, withConnection } from './support/socket.ts';

const residentMiB = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;

const seqs = ({ messages }: Socket): number[] => messages.flatMap((m) => (m.type === 'next' ? m.payload.data.jobEvents.seq : []));

test('2,000 events to 20 sockets and one that does not read: the 20 get all, the server keeps nothing for the laggard, who goes on to the end', async () => {
  await withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    submit(db, { steps: ['hello', { wait: 'go' }, { warnings: 2000, characters: 4000 }, 'ok'], folder });
    close();
    await withJobServer(folder, async ({ url, pid }) => {
      const server = client({ url } as RunningServer, folder);
      const token = await server.admin();
      const { data } = await server.graphql('{ jobs(first: 1) { nodes { id } } }', {}, token);
      const follow = async (socket: Socket, fields: string, after = 0) => {
        const query = `subscription ($id: ID!, $after: SafeInt!) { jobEvents(id: $id, after: $after) { seq ... on JobWarningEvent { ${fields} } } }`;
        socket.send({ type: 'subscribe', id: 'e', payload: { query, variables: { id: data.jobs.nodes[0].id, after } } });
        await socket.message((m) => m.type === 'next');
      };
      const withConnections = (n: number, sockets: Socket[], use: (sockets: Socket[]) => Promise<void>): Promise<void> =>
        n === 0 ? use(sockets) : withConnection(url, token, (socket) => withConnections(n - 1, [...sockets, socket], use));
      await withConnections(21, [], async ([laggard, ...sockets]) => {
        if (!laggard) throw new Error('no socket');
        for (const socket of sockets) await follow(socket, 'code');
        // 160 kB an event: 320 MB if all were kept. What the collector leaves for later is the more, the less of the processor it gets.
        await follow(laggard, Array.from({ length: 40 }, (_, i) => `m${i}: message`).join(' '));
        laggard.raw.pause();
        const before = residentMiB(pid);
        writeFileSync(join(folder, 'go'), '');
        for (const socket of sockets) await socket.message((m) => m.type === 'complete');
        expect(residentMiB(pid) - before, 'MiB').toBeLessThan(200);
        const all = Array.from({ length: 2003 }, (_, i) => i + 1);
        for (const socket of sockets) expect(seqs(socket)).toEqual(all);
        expect(seqs(laggard).length).toBeLessThan(2000);
        laggard.raw.terminate();
        const seen = seqs(laggard);
        await withConnection(url, token, async (again) => {
          await follow(again, 'code', seen.at(-1));
          await again.message((m) => m.type === 'complete');
          expect([...seen, ...seqs(again)]).toEqual(all);
        });
      });
    });
  });
});
