/**
 * Bounds what connections can cost an HTTP server, whoever opens them: how many there are, how long a head or a body may take, and that each
 * of them is closed at the end.
 *
 * A new connection is always taken. Where that makes too many, another one is closed: the one that has waited longest for its client, of the
 * address that has most of them. So those who open thousands lose their own, and the server need not know whether an address is a proxy with many users.
 */
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/**
 * A connection on which nothing moves for so long is closed: its client does not read what it holds memory for, or has gone. It is longer than
 * what `infer` waits for (`deployments/infer.ts`), and that is longer than the longest deadline (`inference/config.ts`).
 */
export const silenceMs = 75_000;
/** A body of which less arrives within that time is cut off: its client has stopped, or takes care to be slow. */
const progress = { ms: 10_000, bytesMin: 10 * 1024 };

interface Connection {
  socket: Socket;
  address: string;
  /** For how many reasons it is not closed in favour of others. */
  trusted: number;
  /** Requests without a whole answer. */
  open: Set<ServerResponse>;
}

export interface Connections {
  /** This request is of somebody with a valid token: its connection is not closed in favour of others until it has its answer. */
  trust(res: ServerResponse): void;
  /** The same for a connection that is a WebSocket, until it closes. */
  trustSocket(socket: Duplex): void;
  /** From now on each connection is closed by the next answer. */
  closeAfterAnswers(): void;
  /** Closes every connection, whatever it does. */
  closeAll(): void;
}

/** Why a request was refused before it was one. */
export interface RefusedHead {
  status: 400 | 408 | 413 | 431;
  message: string;
}

/** By the code of the error that Node's parser, or its time limits, end a request with; any other is 400. */
const refusals: Record<string, RefusedHead> = {
  HPE_INVALID_URL: {
    status: 400,
    message: 'The address has characters that must be percent-encoded, such as a space, or a letter beyond ASCII: %C3%A4 for ä.',
  },
  HPE_HEADER_OVERFLOW: { status: 431, message: 'The headers are longer than 16 KiB.' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, message: 'The extensions of a chunk are longer than 16 KiB.' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, message: 'The request did not arrive in time. Send it again.' },
};
const phrases = { 400: 'Bad Request', 408: 'Request Timeout', 413: 'Payload Too Large', 431: 'Request Header Fields Too Large' };

interface Limits {
  /** Connections of all kinds at a time. */
  max: number;
  /** How long a whole request may take to arrive; 0 where uploads take as long as they move. */
  requestMs: number;
  /** How long a head may take, or a connection that sends nothing. */
  headersMs?: number;
}

/** `bodyOf`: what a client reads, as JSON, whose request could not be parsed. */
export function guardedServer(
  { max, requestMs, headersMs = 10_000 }: Limits,
  bodyOf: (refused: RefusedHead) => string,
  listener?: RequestListener,
): { http: Server; connections: Connections } {
  const http = createServer({
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: silenceMs,
    // By default Node checks these limits only every 30 seconds.
    connectionsCheckingInterval: Math.min(1000, headersMs),
  });
  http.setTimeout(silenceMs);
  const connections = guardConnections(http, max, bodyOf);
  if (listener) http.on('request', listener);
  return { http, connections };
}

function guardConnections(http: Server, max: number, bodyOf: (refused: RefusedHead) => string): Connections {
  /** In the order in which they began to wait for their clients. */
  const connections = new Map<Duplex, Connection>();
  let stopping = false;

  function closeOne(): void {
    const waiting = [...connections.values()].filter(waitsForClient);
    const counts = new Map<string, number>();
    for (const { address } of waiting) counts.set(address, (counts.get(address) ?? 0) + 1);
    const most = Math.max(...counts.values());
    waiting.find(({ address }) => counts.get(address) === most)?.socket.destroy();
  }

  http.on('connection', (socket) => {
    connections.set(socket, { socket, address: socket.remoteAddress ?? '', trusted: 0, open: new Set() });
    // Each pipelined request listens to its end.
    socket.setMaxListeners(0);
    socket.once('close', () => connections.delete(socket));
    if (connections.size > max) closeOne();
  });

  // Node itself would answer these without a body.
  http.on('clientError', (error: Error & { code?: string }, socket) => {
    const answering = [...(connections.get(socket)?.open ?? [])].some(({ headersSent }) => headersSent);
    if (!socket.writable || answering || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const refused = refusals[error.code ?? ''] ?? { status: 400, message: `The request is not HTTP: ${error.message}.` };
    const body = bodyOf(refused);
    socket.end(
      `HTTP/1.1 ${refused.status} ${phrases[refused.status]}\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      () => socket.destroy(),
    );
  });

  http.on('request', (req: IncomingMessage, res: ServerResponse) => {
    const connection = connections.get(req.socket);
    if (!connection) return;
    connection.open.add(res);
    if (stopping) res.shouldKeepAlive = false;
    if (!req.complete) requireProgress(req);
    res.once('close', () => {
      connection.open.delete(res);
      if (connections.delete(req.socket)) connections.set(req.socket, connection);
    });
  });

  return {
    trust(res) {
      const connection = connections.get(res.req.socket);
      if (!connection) return;
      connection.trusted += 1;
      res.once('close', () => {
        connection.trusted -= 1;
      });
    },
    trustSocket(socket) {
      const connection = connections.get(socket);
      if (connection) connection.trusted += 1;
    },
    closeAfterAnswers() {
      stopping = true;
      for (const { open } of connections.values()) for (const res of open) res.shouldKeepAlive = false;
    },
    closeAll() {
      for (const socket of [...connections.keys()]) socket.destroy();
    },
  };
}

/** It has sent nothing, or not all of a request, or does not read its answer. */
const waitsForClient = ({ trusted, open, socket }: Connection): boolean =>
  trusted === 0 && (socket.writableLength > 0 || [...open].every(({ req }) => !req.complete));

function requireProgress(req: IncomingMessage): void {
  const { socket } = req;
  let before = socket.bytesRead;
  const timer = setInterval(() => {
    const moved = socket.bytesRead - before;
    before = socket.bytesRead;
    if (req.complete) over();
    // What waits here to be read is not the client's fault.
    else if (moved < progress.bytesMin && req.readableLength === 0) socket.destroy();
  }, progress.ms).unref();
  // A listener that stays on a connection keeps its request in memory for as long as the connection is kept alive.
  const over = (): void => {
    clearInterval(timer);
    socket.off('close', over);
    req.off('close', over);
  };
  socket.once('close', over);
  req.once('close', over);
}
