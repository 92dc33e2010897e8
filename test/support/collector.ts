/** A collector of OpenTelemetry's traces: OTLP over HTTP, as JSON. */
import { eventually } from './eventually.ts';
import { type Receiver, withReceiver } from './receiver.ts';

export interface CollectedSpan {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  /** Empty where the span begins a trace. */
  parentSpanId: string;
  /** 2: SERVER, 5: CONSUMER, 1: INTERNAL. */
  kind: number;
  attributes: Record<string, string | number>;
  /** 2: it failed. */
  status: number;
  startNs: bigint;
  endNs: bigint;
}

export interface Collector {
  /** What switches traces on. */
  env: Record<string, string>;
  receiver: Receiver;
  spans(): CollectedSpan[];
  /** The span, sent already or later, with this name. */
  span(name: string): Promise<CollectedSpan>;
  /** The span around this one, which ends, and so is sent, after it. */
  parentOf(span: CollectedSpan): Promise<CollectedSpan>;
}

export const withCollector = <T>(use: (collector: Collector) => Promise<T>): Promise<T> =>
  withReceiver(async (receiver) => {
    receiver.answer = (res) => res.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    const spans = () => receiver.received.flatMap(({ body }) => spansIn(JSON.parse(body)));
    const sent = (what: string, matches: (span: CollectedSpan) => boolean) =>
      eventually(() => {
        const found = spans().find(matches);
        if (!found) throw new Error(`There is no span ${what}, but ${spans().map((one) => one.name)}.`);
        return found;
      });
    return use({
      env: {
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
        OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
        OTEL_BSP_SCHEDULE_DELAY: '20',
      },
      receiver,
      spans,
      span: (name) => sent(name, (one) => one.name === name),
      parentOf: ({ name, parentSpanId }) => sent(`around ${name}`, ({ spanId }) => spanId === parentSpanId),
    });
  });

type Value = Record<string, string | number | undefined>;
type Entries = { key: string; value: Value }[];
interface Sent {
  resourceSpans: {
    resource: { attributes: Entries };
    scopeSpans: {
      spans: (Omit<CollectedSpan, 'service' | 'attributes' | 'status' | 'startNs' | 'endNs'> & {
        attributes: Entries;
        status?: { code?: number };
        startTimeUnixNano: string;
        endTimeUnixNano: string;
      })[];
    }[];
  }[];
}

function spansIn({ resourceSpans }: Sent): CollectedSpan[] {
  const recordOf = (list: Entries) => Object.fromEntries(list.map(({ key, value }) => [key, scalarOf(value)]));
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        ...span,
        service: String(recordOf(resource.attributes)['service.name']),
        parentSpanId: span.parentSpanId ?? '',
        attributes: recordOf(span.attributes),
        status: span.status?.code ?? 0,
        startNs: BigInt(span.startTimeUnixNano),
        endNs: BigInt(span.endTimeUnixNano),
      })),
    ),
  );
}

const scalarOf = ({ stringValue, intValue, doubleValue }: Value): string | number => stringValue ?? doubleValue ?? Number(intValue);
