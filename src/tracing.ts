/**
 * Traces: which pieces of work a request or a job consisted of, and how long each took. A leaf that everything may import. Where tracing is
 * off (`tracingSettings.ts`) there is no `Tracing`, no span is made, and OpenTelemetry's SDK is not loaded: only `otlp.ts` imports it.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { IncomingHttpHeaders } from 'node:http';

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
export function contextIn({ traceparent, tracestate }: IncomingHttpHeaders): TraceContext | undefined {
  if (typeof traceparent !== 'string') return undefined;
  return { traceparent, ...(typeof tracestate === 'string' ? { tracestate } : {}) };
}
