/**
 * One arm of `npm run bench:api`: `product` is Whetstone's server, `bare` the least that Yoga, Pothos and better-sqlite3 need to answer
 * the same questions from the same rows, without accounts. Each line on stdin appends an event to the job and tells its subscribers;
 * the event carries the moment at which that was asked for.
 */

import '../src/loading.ts';
import { setMaxListeners } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import SchemaBuilder from '@pothos/core';
import Sqlite from 'better-sqlite3';
import { useServer } from 'graphql-ws/use/ws';
import { createPubSub, createYoga } from 'graphql-yoga';
import { WebSocketServer } from 'ws';
import { finishLoading } from '../src/loading.ts';

const [arm, dataDir = '', jobId = ''] = process.argv.slice(2);
const now = () => performance.timeOrigin + performance.now();
const lines = createInterface({ input: process.stdin });

async function product(): Promise<string> {
  // Here, not at the top: the bare arm must not hold the product in its memory.
  const { readConfig } = await import('../src/config.ts');
  const { inTransaction } = await import('../src/db.ts');
  const { appendEvent } = await import('../src/jobs/events.ts');
  const { createLog } = await import('../src/log.ts');
  const { startServer } = await import('../src/server.ts');
  const config = readConfig({ WHETSTONE_DATA_DIR: dataDir, WHETSTONE_PORT: '0', WHETSTONE_LOG_LEVEL: 'silent' });
  const { url, services } = await startServer(config, createLog(config));
  finishLoading();
  lines.on('line', () => {
    const payload = { code: 'BENCH', message: String(now()) };
    const { db, bus } = services;
    inTransaction(db, (tx) => appendEvent(tx, jobId, 0, { type: 'WARNING', payload }));
    bus.wake('jobEvent', jobId);
  });
  return url;
}

interface Row {
  id: string;
  kind: string;
  state: string;
  createdAt: number;
}

async function bare(): Promise<string> {
  // Fifty subscribers are no leak.
  setMaxListeners(0);
  const db = new Sqlite(`${dataDir}/whetstone.db`);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  const newest = db.prepare('SELECT id, kind, state, createdAt FROM job ORDER BY createdAt DESC, id DESC LIMIT ?');
  const one = db.prepare('SELECT id, kind, state, createdAt FROM job WHERE id = ?');
  const points = db.prepare('SELECT name, step, value FROM metric_point WHERE jobId = ? ORDER BY name, step');
  const insert = db.prepare('INSERT INTO job_event (jobId, seq, attemptNumber, at, type, payloadJson) VALUES (?, ?, 0, ?, ?, ?)');
  const pubsub = createPubSub<{ event: [{ seq: number; message: string }] }>();

  // The product's plugins are known to the types of this process, not used by this builder.
  const builder = new SchemaBuilder<{
    Objects: { Job: Row; Point: { name: string; step: number; value: number }; Event: { seq: number; message: string } };
  }>({} as never);
  builder.objectType('Point', {
    fields: (t) => ({ name: t.exposeString('name'), step: t.exposeInt('step'), value: t.exposeFloat('value') }),
  });
  builder.objectType('Job', {
    fields: (t) => ({
      id: t.exposeID('id'),
      kind: t.exposeString('kind'),
      state: t.exposeString('state'),
      createdAt: t.string({ resolve: (j) => new Date(j.createdAt).toISOString() }),
      points: t.field({ type: ['Point'], resolve: (j) => points.all(j.id) as never }),
    }),
  });
  builder.objectType('Event', { fields: (t) => ({ seq: t.exposeInt('seq'), message: t.exposeString('message') }) });
  builder.queryType({
    fields: (t) => ({
      jobs: t.field({
        type: ['Job'],
        args: { first: t.arg.int({ required: true }) },
        resolve: (_r, { first }) => newest.all(first) as Row[],
      }),
      job: t.field({
        type: 'Job',
        nullable: true,
        args: { id: t.arg.id({ required: true }) },
        resolve: (_r, { id }) => one.get(id) as Row,
      }),
    }),
  });
  builder.subscriptionType({
    fields: (t) => ({ events: t.field({ type: 'Event', subscribe: () => pubsub.subscribe('event'), resolve: (e) => e }) }),
  });
  const schema = builder.toSchema();
  const http = createServer(createYoga({ schema, graphiql: false, logging: false }));
  useServer({ schema }, new WebSocketServer({ server: http, path: '/graphql' }));
  let seq = (db.prepare('SELECT max(seq) AS n FROM job_event WHERE jobId = ?').get(jobId) as { n: number }).n;
  lines.on('line', () => {
    const message = String(now());
    seq += 1;
    insert.run(jobId, seq, Date.now(), 'WARNING', JSON.stringify({ message }));
    pubsub.publish('event', { seq, message });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
}

const url = await (arm === 'product' ? product() : bare());
process.stdout.write(`${url}\n`);
