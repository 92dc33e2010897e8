/**
 * Traces: which pieces of work a request or a job consisted of, and how long each took. A leaf that everything may import. Where tracing is
 * off (`tracingSettings.ts`) there is no `Tracing`, no span is made, and OpenTelemetry's SDK is not loaded: only `otlp.ts` imports it.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';

/** W3C's headers of the same names: the span that others continue. `traceparent` has 55 characters. */
export interface TraceContext {
  traceparent: string;
  tracestate?: string;
}

export type Attributes = Record<string, string | number | boolean>;

export interface Span {
  readonly context: TraceContext;
  readonly traceId: string;
  set(attributes: Attributes): void;
  /** `problem`: why the work failed. `at`: Unix milliseconds, without it now. */
  end(how?: { problem?: string | undefined; at?: number }): void;
}

interface SpanStart {
  /** SERVER: it answers a request. CONSUMER: it was asked for earlier, and waited. */
  kind?: 'SERVER' | 'CONSUMER' | 'INTERNAL';
  /** Undefined, or not in W3C's form: it begins a trace. */
  parent: TraceContext | undefined;
  attributes?: Attributes;
  /** Unix milliseconds; without it now. */
  at?: number;
}

export interface Tracing {
  /** A span whose trace is not sampled is never sent, but has a context all the same: whoever continues it is not sampled either. */
  start(name: string, start: SpanStart): Span;
  /** Sends what has ended, and waits no longer than `ms`. */
  stop(ms: number): Promise<void>;
}

/** The span that the running code belongs to. */
export const activeSpan = new AsyncLocalStorage<Span>();

/** What a request says that it continues. */
function contextIn({ traceparent, tracestate }: IncomingHttpHeaders): TraceContext | undefined {
  if (typeof traceparent !== 'string') return undefined;
  return { traceparent, ...(typeof tracestate === 'string' ? { tracestate } : {}) };
}

/** Begins the span of a request. Its path and its query may be secrets, such as a signed link: so the span has the route only, where there is one. */
export function traceRequest(tracing: Tracing, req: IncomingMessage, route: string | undefined, attributes: Attributes = {}): Span {
  const method = req.method ?? '';
  return tracing.start(route === undefined ? method : `${method} ${route}`, {
    kind: 'SERVER',
    parent: contextIn(req.headers),
    attributes: { 'http.request.method': method, ...(route === undefined ? {} : { 'http.route': route }), ...attributes },
  });
}

/** Ends it, when the answer has been sent or the client has gone. */
export function endRequest(span: Span, { headersSent, statusCode }: ServerResponse): void {
  span.set(headersSent ? { 'http.response.status_code': statusCode } : { 'error.type': 'ABORTED' });
  span.end(headersSent && statusCode >= 500 ? { problem: `status ${statusCode}` } : {});
}
