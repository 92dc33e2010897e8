/**
 * The curves of a job as an event file of TensorBoard: records with checksums, each a message of Protocol Buffers. It is made when it is asked
 * for, so that a training that still runs has one, and a resumed one has all of its epochs.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { and, eq, sql } from 'drizzle-orm';
import type { Db } from '../db.ts';
import { notFound } from '../errors.ts';
import { attachment } from '../storage/files.ts';
import { checkLink, type LinkContext, signedUrl } from '../storage/links.ts';
import { inTurn } from '../turns.ts';
import { type Curve, readCurves } from './curves.ts';
import { findJob } from './jobs.ts';
import { type Job, jobEvent } from './tables.ts';

const pointsMax = 5000;

export const tensorboardUrl = (context: LinkContext, { id }: Job): string => signedUrl(context, `/files/curves/${id}`);

/** `GET /files/curves/<job>` behind a link of `tensorboardUrl`. */
export async function serveTensorboard(services: { db: Db; linkKey: Buffer }, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = new URL(req.url ?? '', 'http://localhost');
  checkLink(services, url);
  const job = findJob(services.db, url.pathname.split('/')[3] ?? '') ?? notFound('job');
  const curves = await readCurves(services.db, req, job.id, null, pointsMax);
  const file = await eventFile(req, curves, job.createdAt, epochTimes(services.db, job.id));
  res.setHeader('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'; sandbox");
  res.setHeader('Cache-Control', 'private, no-store');
  res.setHeader('Content-Type', 'application/octet-stream');
  // TensorBoard reads files whose names have this part.
  res.setHeader('Content-Disposition', attachment(`events.out.tfevents.${Math.floor(job.createdAt / 1000)}.${job.id}`));
  res.setHeader('Content-Length', file.length);
  res.end(req.method === 'HEAD' ? undefined : file);
}

/** When each step's epoch ended, in Unix milliseconds. */
function epochTimes(db: Db, jobId: string): Map<number, number> {
  const rows = db
    .select({ step: sql<number>`${jobEvent.payloadJson} ->> '$.step'`, at: jobEvent.at })
    .from(jobEvent)
    .where(and(eq(jobEvent.jobId, jobId), eq(jobEvent.type, 'EPOCH')))
    .all();
  return new Map(rows.map(({ step, at }) => [step, at]));
}

/** `times` by step; a step without one has `createdAt`. Each curve takes a turn (`request` as in `inTurn`). */
export async function eventFile(
  request: object,
  curves: readonly Curve[],
  createdAt: number,
  times: ReadonlyMap<number, number>,
): Promise<Buffer> {
  const parts = [record(event(createdAt, 0, text(3, 'brain.Event:2')))];
  const written = ({ name, points }: Curve) =>
    points.map(({ step, value }) => record(event(times.get(step) ?? createdAt, step, scalar(name, value))));
  for (const curve of curves) parts.push(...(await inTurn(request, () => written(curve))));
  return Buffer.concat(parts);
}

// Fields of Protocol Buffers: number and kind, then the value.

const varint = (value: number): Buffer => {
  const bytes: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return Buffer.from([...bytes, left]);
    bytes.push((left % 128) + 128);
  }
};
const bytesField = (number: number, value: Buffer): Buffer => Buffer.concat([varint(number * 8 + 2), varint(value.length), value]);
const text = (number: number, value: string): Buffer => bytesField(number, Buffer.from(value));

function double(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(9);
  bytes[0] = number * 8 + 1;
  bytes.writeDoubleLE(value, 1);
  return bytes;
}

function float(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes[0] = number * 8 + 5;
  bytes.writeFloatLE(value, 1);
  return bytes;
}

/** `Event`: 1 wall_time in seconds, 2 step, and what happened. A step of 0 is the default and not written. */
const event = (at: number, step: number, what: Buffer): Buffer =>
  Buffer.concat([double(1, at / 1000), ...(step === 0 ? [] : [Buffer.from([2 * 8]), varint(step)]), what]);

/** 5 `Summary`: 1 `Value`: 1 tag, 2 simple_value. */
const scalar = (tag: string, value: number): Buffer => bytesField(5, bytesField(1, Buffer.concat([text(1, tag), float(2, value)])));

/** A record of TensorFlow: length, its checksum, the data, its checksum. */
function record(data: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, checksum(length), data, checksum(data)]);
}

/** CRC-32C of a byte, reflected. */
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  return crc;
});

/** CRC-32C, rotated and moved as TensorFlow's records want it. */
function checksum(data: Buffer): Buffer {
  let crc = 0xffff_ffff;
  for (const byte of data) crc = (table[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  crc = ~crc >>> 0;
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282_ead8) >>> 0);
  return bytes;
}
