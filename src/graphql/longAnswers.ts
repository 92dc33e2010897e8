/** A long answer is written in turns too: as one text, the names of the 10,000 classes of 100 versions would hold the event loop for 200 ms. */
import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { type ExecutionArgs, type ExecutionResult, GraphQLError, getOperationAST } from 'graphql';
import { type Plugin, processRegularResult } from 'graphql-yoga';
import { silenceMs } from '../connections.ts';
import { ApiError } from '../errors.ts';
import { inTurn, tookTurns } from '../turns.ts';

const pieceCharacters = 32 * 1024;
/** MiB of text that is written at once, which takes 20 ms: what one message holds. */
const messageMebibytes = 4;
/** Numbers or texts of a list that are written at a time: 1,000 texts take 0.1 ms. */
const leavesMax = 1000;

/**
 * Writes in pieces what took turns: the rest was made within the first 5 ms, and is written faster than it was made. What is one piece is
 * answered as ever, so that its headers do not tell how long it took. A message of a WebSocket and an event are one text: there, a query whose
 * answer is too long for that is refused.
 */
export const useLongAnswers: Plugin = {
  onExecute({ args }) {
    const { document, operationName, contextValue } = args as ExecutionArgs;
    const { request } = contextValue as { request?: Request };
    // What a mutation did is not to be hidden.
    if ((request && takesJson(request)) || getOperationAST(document, operationName)?.operation !== 'query') return;
    return {
      async onExecuteDone({ result, setResult }) {
        if (Symbol.asyncIterator in result || !tookTurns(contextValue as object)) return;
        if (await fitsMessage(contextValue as object, result)) return;
        const message = `An answer in one message has at most ${messageMebibytes} MiB. Ask for less, or by POST without events.`;
        setResult({ errors: [new GraphQLError(message, { originalError: new ApiError('LIMIT', message) })] });
      },
    };
  },
  onResultProcess({ result, resultProcessor, setResult, serverContext }) {
    if (Symbol.asyncIterator in result || Array.isArray(result) || !tookTurns(serverContext)) return;
    // What Yoga has chosen, not what the client accepts: the rest of any other answer would be left out.
    if (resultProcessor !== processRegularResult) return;
    setResult({
      ...result,
      stringify: (own) => {
        const pieces = piecesOf({ __proto__: null, ...own, stringify: undefined });
        const first = nextPart(pieces);
        if (first.length >= pieceCharacters) longAnswers.set(serverContext, { first, pieces });
        return first;
      },
    });
  },
  onResponse({ serverContext, response, setResponse, fetchAPI }) {
    const answer = longAnswers.get(serverContext);
    if (!answer) return;
    const { status, headers } = response;
    headers.delete('content-length');
    const body = Readable.from(textInTurns(serverContext as { res?: ServerResponse }, answer));
    setResponse(new fetchAPI.Response(body as never, { status, headers }));
  },
};

/** Yoga answers with JSON where it may: with a body by itself, and no event or part of something. */
const takesJson = ({ headers }: Request): boolean =>
  /(^|,)\s*(\*\/\*|application\/(\*|json|graphql-response\+json))\s*(,|;|$)/i.test(headers.get('accept') || '*/*');

async function fitsMessage(context: object, result: ExecutionResult): Promise<boolean> {
  const pieces = piecesOf({ __proto__: null, ...result });
  let length = 0;
  for (let part = ' '; part && length <= messageMebibytes * 2 ** 20; length += part.length)
    part = await inTurn(context, () => nextPart(pieces));
  return length <= messageMebibytes * 2 ** 20;
}

type LongAnswer = { first: string; pieces: Generator<string> };
/** By the context of their requests. */
const longAnswers = new WeakMap<object, LongAnswer>();

async function* textInTurns(context: { res?: ServerResponse }, { first, pieces }: LongAnswer): AsyncGenerator<string> {
  // Yoga lets a stream wait for ever for a client that does not read.
  context.res?.socket?.setTimeout(silenceMs);
  for (let text = first; text; text = await inTurn(context, () => nextPart(pieces))) yield text;
}

/** Empty at the end; shorter than a piece only for the last. */
function nextPart(pieces: Generator<string>): string {
  let part = '';
  while (part.length < pieceCharacters) {
    const { done, value } = pieces.next();
    if (done) break;
    part += value;
  }
  return part;
}

/** The text of `JSON.stringify`. The objects that GraphQL makes have no prototype, so that what is inside a scalar is written at once. */
export function* piecesOf(value: unknown): Generator<string> {
  if (Array.isArray(value)) {
    const isNested = typeof value.find((one) => one !== null) === 'object';
    const length = isNested ? 1 : leavesMax;
    yield '[';
    for (let n = 0; n < value.length; n += length) {
      if (n > 0) yield ',';
      if (isNested) yield* piecesOf(value[n]);
      else yield JSON.stringify(value.slice(n, n + length)).slice(1, -1);
    }
    yield ']';
  } else if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === null) {
    let before = '{';
    for (const [name, one] of Object.entries(value)) {
      if (one === undefined) continue;
      yield `${before}${JSON.stringify(name)}:`;
      yield* piecesOf(one);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  } else yield JSON.stringify(value) ?? 'null';
}
