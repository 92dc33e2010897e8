import { type ExecutionArgs, GraphQLError, type GraphQLErrorExtensions } from 'graphql';
import { createLRUCache, createYoga, type Plugin } from 'graphql-yoga';
import { currentViewer } from '../accounts/viewer.ts';
import { passingError } from '../db.ts';
import { ApiError, errorCodes } from '../errors.ts';
import { type Log, requestScope } from '../log.ts';
import { activeSpan } from '../tracing.ts';
import { untilAborted, watchAccess } from './access.ts';
import type { Context } from './context.ts';
import { useLimits } from './limits.ts';
import { useLongAnswers } from './longAnswers.ts';
import { useReadableResults } from './results.ts';
import { schema } from './schema.ts';
import { traceOperation } from './trace.ts';

/** Characters of a message about a document. */
const messageMax = 1000;
/** Documents that are remembered with the result of their validation. */
const documentsMax = 100;

/**
 * The error as a client may see it: an ApiError with its code, a fault of the document as INVALID_DOCUMENT, and everything else as
 * INTERNAL, with the cause in the log only.
 */
export function publicError(error: unknown, log: Log): GraphQLError {
  const graphqlError = error instanceof GraphQLError ? error : undefined;
  let cause: unknown = graphqlError ? graphqlError.originalError : error;
  while (cause instanceof GraphQLError) cause = cause.originalError;
  cause = passingError(cause) ?? cause;
  // GraphQL repeats a bad value in its message, however long it is.
  if (cause === undefined && graphqlError) cause = new ApiError('INVALID_DOCUMENT', graphqlError.message.slice(0, messageMax));
  if (!(cause instanceof ApiError)) {
    log.error({ err: cause, path: graphqlError?.path }, 'a request failed by a defect');
    cause = new ApiError('INTERNAL', 'Something went wrong inside Whetstone. The log tells more under this request id.');
  }
  const { message, ...extensions } = describeError(cause as ApiError);
  // The library's own status, such as 405 for a mutation by GET. A body that is no JSON is never 200.
  const { http, code } = graphqlError?.extensions ?? {};
  if (http) extensions.http = { ...http, ...(code === 'BAD_REQUEST' ? { spec: false } : {}) };
  return new GraphQLError(message, {
    nodes: graphqlError?.nodes,
    source: graphqlError?.source,
    positions: graphqlError?.positions,
    path: graphqlError?.path,
    extensions,
  });
}

/** Whether an error has been through `publicError`. */
export function isPublic(error: unknown): error is GraphQLError {
  return error instanceof GraphQLError && Object.hasOwn(errorCodes, String(error.extensions.code));
}

/** Message and extensions of an error; `http` is what Yoga takes the status and the headers of the answer from. */
export function describeError(error: ApiError): GraphQLErrorExtensions & { message: string } {
  const { status, retryable } = errorCodes[error.code];
  const { retryAfterMs, code, message } = error;
  const headers = {
    ...(retryAfterMs === undefined ? {} : { 'Retry-After': String(Math.ceil(retryAfterMs / 1000)) }),
    ...(code === 'UNAUTHENTICATED' ? { 'WWW-Authenticate': 'Bearer' } : {}),
  };
  // `spec`: a document that does not fit is 200 to a client that accepts application/json only (GraphQL over HTTP, 6.4.1).
  const http = { status, headers, spec: code === 'INVALID_DOCUMENT' };
  return { message, code, retryable, retryAfterMs, requestId: requestScope.getStore()?.requestId, http };
}

const read = 'application/json, or application/graphql with the document alone';

/** What a request is executed with. Over a WebSocket there is no body. */
type RequestContext = Context & { body: string };

/** Says why a request is refused before it has a document, where Yoga answers without a body, fails, or takes what a browser's form sends. */
const useForm: Plugin<object, RequestContext> = {
  onRequestParse({ request, url, serverContext, requestParser, setRequestParser }) {
    if (request.method === 'POST') {
      const type = (request.headers.get('content-type') ?? '').replace(/[;,].*/s, '').trim();
      if (/^application\/(graphql|json|graphql\+json)$/.test(type)) {
        const { body } = serverContext;
        // Of a request its parsers read the body alone.
        const asked = { text: async () => body, json: async () => JSON.parse(body) } as Request;
        if (requestParser) setRequestParser(() => requestParser(asked));
        return;
      }
      const instead =
        type === 'multipart/form-data'
          ? 'Files go to /uploads: docs/uploads.md.'
          : `Send ${read}; with curl: -H 'content-type: application/json'.`;
      throw new ApiError('MEDIA_TYPE', `GraphQL is not read from a body of the type ${type.slice(0, 100) || '(none)'}. ${instead}`);
    }
    for (const name of ['variables', 'extensions']) {
      const text = url.searchParams.get(name);
      if (!text || isJson(text)) continue;
      throw new GraphQLError(`\`${name}\` in the address is not JSON.`, { extensions: { code: 'BAD_REQUEST', http: { status: 400 } } });
    }
  },
  onParams({ params }) {
    // Apollo and urql know this message, and then send the document. It is 200 to them.
    if (!params.query && params.extensions?.persistedQuery) {
      throw new GraphQLError('PersistedQueryNotSupported', { extensions: { http: { status: 200 } } });
    }
  },
  onResponse({ response, setResponse, fetchAPI }) {
    if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
      // Proxies pass each event on at once: nginx goes by the first, others by the second.
      response.headers.set('X-Accel-Buffering', 'no');
      response.headers.set('Cache-Control', 'no-cache, no-transform');
    }
    if (response.status !== 406) return;
    const {
      message,
      http: _http,
      ...extensions
    } = describeError(
      new ApiError('NOT_ACCEPTABLE', `Accept one of ${response.headers.get('accept')?.replaceAll('; charset=utf-8', '')}.`),
    );
    setResponse(fetchAPI.Response.json({ errors: [{ message, extensions }] }, { status: 406 }));
  },
};

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads who asks, once, when the body is there: with its head, a withheld body would outlive a role that was taken away. An ended session
 * is 401 before the document is looked at.
 */
const useViewer: Plugin<object, Context> = {
  onParams({ context }) {
    if (context.claims) context.viewer = currentViewer(context.db, context.claims);
  },
};

/** Open subscriptions of a user, over all connections: each is executed again at every event. */
const subscriptionsMax = 100;

/**
 * Ends each open subscription when the viewer's access ends or the server stops, with an error that says which. Refuses those beyond what
 * a user may have.
 */
function useAccessEnd(log: Log, stopping: AbortSignal): Plugin<Context> {
  const openOf = new Map<string, number>();
  const count = (userId: string, change: 1 | -1) => {
    const open = (openOf.get(userId) ?? 0) + change;
    if (open === 0) openOf.delete(userId);
    else openOf.set(userId, open);
  };
  return {
    onSubscribe: ({ args, setResultAndStopExecution }) => {
      const context = (args as ExecutionArgs).contextValue as Context;
      const { viewer } = context;
      if (viewer && (openOf.get(viewer.user.id) ?? 0) >= subscriptionsMax) {
        const error = new ApiError('LIMIT', `You have ${subscriptionsMax} subscriptions open, which is the most. End one first.`);
        return setResultAndStopExecution({ errors: [publicError(error, log)] });
      }
      // From before the first event on: what ends meanwhile must not be missed.
      const access = viewer ? watchAccess(context, viewer) : undefined;
      if (viewer) count(viewer.user.id, 1);
      const signal = access ? AbortSignal.any([stopping, access.signal]) : stopping;
      const stop = () => {
        access?.stop();
        if (viewer) count(viewer.user.id, -1);
      };
      return {
        onSubscribeResult({ result, setResult }) {
          if (!(Symbol.asyncIterator in result)) return stop();
          const last = (reason: unknown) => ({ errors: [new GraphQLError((reason as Error).message, { originalError: reason as Error })] });
          setResult(untilAborted(result[Symbol.asyncIterator](), signal, last, stop));
        },
      };
    },
  };
}

/** Gives the time of each query and mutation to the metrics and the trace. */
const useTimes: Plugin<object, Context> = {
  onExecute({ args, executeFn, setExecuteFn }) {
    const { metrics, tracing } = (args as ExecutionArgs).contextValue as Context;
    const begunAt = performance.now();
    const span = tracing ? traceOperation(tracing, args as ExecutionArgs) : null;
    // What its resolvers put into the queue belongs to it.
    if (span) setExecuteFn((own) => activeSpan.run(span, () => executeFn(own)));
    return {
      onExecuteDone({ result }) {
        metrics.executed(args as ExecutionArgs, (performance.now() - begunAt) / 1000);
        const failed = !(Symbol.asyncIterator in result) && (result.errors?.length ?? 0) > 0;
        span?.end(failed ? { problem: 'The answer has errors.' } : {});
      },
    };
  },
};

/** Validation's errors reach the client past the mask. Beside data of other fields an error leaves the status at 200. */
function useErrorCodes(log: Log): Plugin {
  return {
    onResultProcess({ result, setResult }) {
      if (Symbol.asyncIterator in result || Array.isArray(result) || !('errors' in result) || !result.errors) return;
      const errors = result.errors.map((error) => (isPublic(error) ? error : publicError(error, log)));
      const partial = Object.values((result.data as object | null) ?? {}).some((value) => value !== null);
      if (partial) for (const { extensions } of errors) delete extensions?.http;
      setResult({ ...result, errors });
    },
  };
}

/** The GraphQL endpoint over HTTP and SSE. `stopping` ends its streams. */
export function createGraphql(log: Log, stopping: AbortSignal) {
  return createYoga<RequestContext>({
    schema,
    graphqlEndpoint: '/graphql',
    graphiql: false,
    landingPage: false,
    cors: false,
    multipart: false,
    batching: false,
    maxRequestBodySize: false,
    logging: false,
    maskedErrors: { maskError: (error) => publicError(error, log) },
    // A parsed document of 2,000 tokens takes 0.9 MiB, and anybody can make millions of them; those that do not parse are not kept.
    parserAndValidationCache: {
      documentCache: createLRUCache({ max: documentsMax }),
      errorCache: { get: () => undefined, set: () => undefined },
    },
    plugins: [useForm, useViewer, useLimits, useReadableResults, useTimes, useErrorCodes(log), useLongAnswers, useAccessEnd(log, stopping)],
  });
}

export type Graphql = ReturnType<typeof createGraphql>;
