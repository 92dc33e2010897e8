/** A receiver of webhooks on 127.0.0.1 that answers as a test says. */
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface Receiver {
  url: string;
  received: Received[];
  /** How it answers; with 204 unless a test says otherwise. */
  answer: (res: ServerResponse, got: Received) => void;
}

export async function withReceiver<T>(use: (receiver: Receiver) => Promise<T>): Promise<T> {
  const receiver: Receiver = { url: '', received: [], answer: (res) => res.writeHead(204).end() };
  const server = createServer(async (req: IncomingMessage, res) => {
    let body = '';
    for await (const chunk of req) body += chunk;
    const got = { path: req.url ?? '', headers: req.headers, body };
    receiver.received.push(got);
    receiver.answer(res, got);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  receiver.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    return await use(receiver);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

/** What the Standard Webhooks specification asks a receiver to compare. */
export function isSigned({ headers, body }: Received, secret: string): boolean {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  const isNow = Math.abs(Number(headers['webhook-timestamp']) - Date.now() / 1000) < 300;
  const signature = `v1,${createHmac('sha256', key).update(signed).digest('base64')}`;
  return isNow && String(headers['webhook-signature']).split(' ').includes(signature);
}
