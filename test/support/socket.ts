import { once } from 'node:events';
import { WebSocket } from 'ws';

/** A message of the protocol graphql-transport-ws. */
export interface Message {
  type: string;
  id?: string;
  // biome-ignore lint/suspicious/noExplicitAny: a result or a list of errors, as the test expects.
  payload?: any;
}

export interface Socket {
  raw: WebSocket;
  /** Everything received so far. */
  messages: Message[];
  send(message: Message): void;
  /** The first message, received already or later, that `matches`; throws when the socket closes without one. */
  message(matches: (message: Message) => boolean): Promise<Message>;
  /** How the socket was closed, when it was. */
  closed: Promise<{ code: number; reason: string }>;
}

/** Runs `use` with a socket to the server's /graphql; it is gone afterwards. Rejects with the status of a refused upgrade. */
export async function withSocket<T>(
  url: string,
  use: (socket: Socket) => Promise<T>,
  { protocol = 'graphql-transport-ws', ...options }: { protocol?: string; origin?: string; autoPong?: boolean } = {},
): Promise<T> {
  const raw = new WebSocket(`${url.replace('http', 'ws')}/graphql`, protocol, options);
  raw.on('error', () => {});
  const messages: Message[] = [];
  const seen = new Set<(message: Message) => void>();
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    raw.once('close', (code, reason) => resolve({ code, reason: String(reason) })),
  );
  raw.on('message', (data) => {
    const message = JSON.parse(String(data)) as Message;
    messages.push(message);
    for (const tell of seen) tell(message);
  });
  const refused = once(raw, 'unexpected-response').then(([, response]) => {
    throw new Error(`refused with ${response.statusCode}`);
  });
  try {
    await Promise.race([once(raw, 'open'), refused]);
    return await use({
      raw,
      messages,
      closed,
      send: (message) => raw.send(JSON.stringify(message)),
      message: (matches) =>
        new Promise((resolve, reject) => {
          const tell = (message: Message) => matches(message) && resolve(message);
          seen.add(tell);
          messages.forEach(tell);
          closed.then(({ code, reason }) => reject(new Error(`The socket was closed: ${code} ${reason}`)));
        }),
    });
  } finally {
    raw.terminate();
  }
}

/** A socket whose connection_init, with the token if there is one, was acknowledged. */
export async function withConnection<T>(url: string, token: string | undefined, use: (socket: Socket) => Promise<T>): Promise<T> {
  return withSocket(url, async (socket) => {
    socket.send({ type: 'connection_init', payload: token === undefined ? undefined : { authorization: `Bearer ${token}` } });
    await socket.message((m) => m.type === 'connection_ack');
    return use(socket);
  });
}

/** The answer to one operation over the socket: the payload of its `next`, or the errors of its `error`. */
export async function ask(socket: Socket, id: string, query: string, variables: unknown = {}): Promise<Message> {
  socket.send({ type: 'subscribe', id, payload: { query, variables } });
  return socket.message((m) => m.id === id && (m.type === 'next' || m.type === 'error'));
}
