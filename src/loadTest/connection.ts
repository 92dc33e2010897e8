/** Raw HTTP/1.1 over kept-alive connections: what drives load must take as little of the machine as it can. */
import { connect, type Socket } from 'node:net';
import { nowMs } from '../inference/clock.ts';

export interface Reply {
  /** Of HTTP; `noAnswer` where the connection ended first. */
  status: number;
  ms: number;
  /** Beginning of the body of an answer that is not 200. */
  text: string;
  /** The `Retry-After` of the answer; null where it has none. */
  retryAfterMs: number | null;
}

/** Instead of an HTTP status. */
export const noAnswer = 0;

const textMax = 1000;
const headEnd = '\r\n\r\n';

/** A connection, with at most one request at a time. */
export class KeptConnection {
  busy = false;
  closed = false;
  readonly #socket: Socket;
  #tell: (reply: Reply) => void = () => {};
  #sinceMs = 0;
  /** What has arrived of the head; null while the body arrives. */
  #head: Buffer | null = Buffer.alloc(0);
  #status = noAnswer;
  #bodyLeft = 0;
  #text = '';
  #retryAfterMs: number | null = null;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), noDelay: true });
    this.#socket.on('data', (bytes) => this.#read(bytes));
    // `close` follows.
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      this.closed = true;
      this.#end(noAnswer);
    });
  }

  /** Never rejects. The latency counts from `sinceMs` (of `nowMs()`): when the request was due, if it could not be sent then. */
  send(request: Uint8Array, sinceMs = nowMs()): Promise<Reply> {
    this.busy = true;
    this.#sinceMs = sinceMs;
    this.#socket.write(request);
    return new Promise((resolve) => {
      this.#tell = resolve;
      if (this.closed) this.#end(noAnswer);
    });
  }

  #read(bytes: Buffer): void {
    let body = bytes;
    if (this.#head) {
      const head = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
      const end = head.indexOf(headEnd);
      this.#head = end < 0 ? head : null;
      if (end < 0) return;
      const lines = head.toString('latin1', 0, end);
      this.#status = Number(lines.slice(9, 12));
      this.#bodyLeft = Number(/content-length: (\d+)/i.exec(lines)?.[1] ?? 0);
      const retryAfter = /retry-after: (\d+)/i.exec(lines)?.[1];
      this.#retryAfterMs = retryAfter === undefined ? null : 1000 * Number(retryAfter);
      body = head.subarray(end + headEnd.length);
    }
    if (this.#status !== 200 && this.#text.length < textMax) this.#text += body.toString('utf8', 0, textMax);
    this.#bodyLeft -= body.length;
    if (this.#bodyLeft <= 0) this.#end(this.#status);
  }

  #end(status: number): void {
    const reply = { status, ms: nowMs() - this.#sinceMs, text: this.#text, retryAfterMs: this.#retryAfterMs };
    const tell = this.#tell;
    this.busy = false;
    this.#tell = () => {};
    this.#head = Buffer.alloc(0);
    this.#text = '';
    this.#retryAfterMs = null;
    tell(reply);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** The bytes of a POST. */
export function postOf(path: string, headers: Record<string, string | number>, body: Uint8Array): Buffer {
  const lines = Object.entries({ host: 'localhost', 'content-length': body.length, ...headers }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('\r\n')}${headEnd}`), body]);
}
