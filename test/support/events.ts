/** What an event stream of the server carries: an answer, the end, or a sign of life. */
export interface StreamItem {
  type: 'next' | 'complete' | 'ping';
  // biome-ignore lint/suspicious/noExplicitAny: a result has the shape that the test expects.
  payload?: any;
}

/** Runs `use` with the answers of one operation over SSE; the request is ended afterwards. */
export async function withEvents<T>(
  url: string,
  query: string,
  token: string | undefined,
  use: (items: AsyncIterableIterator<StreamItem>, response: Response) => Promise<T>,
  variables: unknown = {},
): Promise<T> {
  const controller = new AbortController();
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream',
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    body: JSON.stringify({ query, variables }),
    signal: controller.signal,
  });
  try {
    return await use(read(response), response);
  } finally {
    controller.abort();
  }
}

async function* read({ body }: Response): AsyncGenerator<StreamItem, undefined> {
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of body as ReadableStream<Uint8Array>) {
    const blocks = (text + decoder.decode(chunk, { stream: true })).split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) {
      const lines = new Map(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]));
      const type = lines.get('event') as StreamItem['type'] | undefined;
      yield { type: type ?? 'ping', payload: lines.get('data') ? JSON.parse(lines.get('data') as string) : undefined };
    }
  }
  return undefined;
}

/** The next answer of the stream, past signs of life; undefined at its end. */
export async function nextAnswer(items: AsyncIterator<StreamItem>): Promise<StreamItem['payload']> {
  for (;;) {
    const { done, value } = await items.next();
    if (done || value.type === 'complete') return undefined;
    if (value.type === 'next') return value.payload;
  }
}
