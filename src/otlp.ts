/**
 * Spans by OpenTelemetry's SDK, sent over OTLP/HTTP. Loaded only where traces are asked for: its packages take 0.1 s and 26 MB (SDK 3.1,
 * Node 24.21). Nothing of it is registered globally, and no module is patched: spans are made where the work is done.
 */
import {
  type Attributes,
  createTraceState,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { OTLPExporterBase } from '@opentelemetry/otlp-exporter-base';
import { convertLegacyHttpOptions, createOtlpHttpExportDelegate } from '@opentelemetry/otlp-exporter-base/node-http';
import { JsonTraceSerializer, ProtobufTraceSerializer, TraceExporterMetricsHelper } from '@opentelemetry/otlp-transformer';
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { Log } from './log.ts';
import { within } from './stopTimes.ts';
import type { Span, TraceContext, Tracing } from './tracing.ts';
import type { TracingSettings } from './tracingSettings.ts';
import { codeVersion } from './version.ts';

/** `service`: its name, unless the environment has another. */
export function startTracing(settings: TracingSettings, service: string, log: Log): Tracing {
  // What the packages find wrong with the environment or an answer. Failed exports are reported by `tellingExporter`.
  const say = (message: string) => log.debug({ reason: message }, 'OpenTelemetry');
  diag.setLogger(
    { error: say, warn: say, info() {}, debug() {}, verbose() {} },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': service, 'service.version': codeVersion }))
      .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] })),
    sampler: samplerOf(settings),
    spanProcessors: [new BatchSpanProcessor({ exporter: tellingExporter(exporterOf(settings), log), ...settings.batch })],
  });
  const tracer = provider.getTracer('whetstone', codeVersion);
  log.info({ protocol: settings.protocol, sampler: settings.sampler }, 'traces are sent to the OTLP endpoint');
  return {
    start(name, { kind = 'INTERNAL', parent, attributes, at }) {
      const continued = parent && spanContextOf(parent);
      const context = continued ? trace.setSpanContext(ROOT_CONTEXT, continued) : ROOT_CONTEXT;
      const span = tracer.startSpan(name, { kind: SpanKind[kind], startTime: at, attributes }, context);
      return {
        ...identityOf(span.spanContext()),
        set: (more: Attributes) => void span.setAttributes(more),
        end({ problem, at: endedAt } = {}) {
          if (problem !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: problem });
          span.end(endedAt);
        },
      };
    },
    // A collector that does not answer holds the last spans, never the stop.
    stop: (ms) =>
      within(
        ms,
        provider.shutdown().catch(() => {}),
        () => {},
      ),
  };
}

/** Of version 00; of a later one what that version has in common with it. */
function spanContextOf({ traceparent, tracestate }: TraceContext): SpanContext | undefined {
  const [, version, traceId = '', spanId = '', flags = '', more] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(traceparent) ?? [];
  if (!version || version === 'ff' || (version === '00' && more)) return undefined;
  const context = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true };
  if (!trace.isSpanContextValid(context)) return undefined;
  return { ...context, ...(tracestate ? { traceState: createTraceState(tracestate) } : {}) };
}

function identityOf({ traceId, spanId, traceFlags, traceState }: SpanContext): Pick<Span, 'context' | 'traceId'> {
  const tracestate = traceState?.serialize();
  const traceparent = `00-${traceId}-${spanId}-0${traceFlags & 1}`;
  return { traceId, context: { traceparent, ...(tracestate ? { tracestate } : {}) } };
}

function samplerOf({ sampler, samplerShare }: TracingSettings): Sampler {
  const roots = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => new TraceIdRatioBasedSampler(samplerShare),
  };
  const root = roots[sampler.replace('parentbased_', '') as keyof typeof roots]();
  return sampler.startsWith('parentbased_') ? new ParentBasedSampler({ root }) : root;
}

/** Endpoint, headers, certificates, compression and timeout come from the environment. */
function exporterOf({ protocol }: TracingSettings): SpanExporter {
  const [type, serializer] =
    protocol === 'http/json'
      ? (['application/json', JsonTraceSerializer] as const)
      : (['application/x-protobuf', ProtobufTraceSerializer] as const);
  const options = convertLegacyHttpOptions({}, 'TRACES', 'v1/traces', { 'Content-Type': type });
  return new OTLPExporterBase<ReadableSpan[]>(
    createOtlpHttpExportDelegate(options, serializer, 'otlp_http_span_exporter', TraceExporterMetricsHelper, undefined),
  );
}

/** Says once that spans cannot be delivered, and once that they can again. What was not delivered after the exporter's retries is lost. */
function tellingExporter(exporter: SpanExporter, log: Log): SpanExporter {
  let failed = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const fails = result.error !== undefined;
        if (fails && !failed) {
          log.warn(
            { reason: result.error?.message },
            'Traces cannot be sent: look at OTEL_EXPORTER_OTLP_ENDPOINT. They are dropped until then.',
          );
        }
        if (!fails && failed) log.info('traces are sent again');
        failed = fails;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: async () => exporter.forceFlush?.(),
  };
}
