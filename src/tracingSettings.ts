/**
 * OpenTelemetry's variables, where Whetstone reads them itself. Those of the exporter (endpoint, headers, certificates, compression, timeout)
 * and of the resource (service name, attributes) are read by OpenTelemetry's packages from the environment of the process.
 */
import { resolve } from 'node:path';
import { z } from 'zod';
import { rangeProblem } from './ranges.ts';

const protocols = ['http/protobuf', 'http/json'] as const;
const samplers = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
] as const;

const whole = z.coerce.number().int();
const endpoint = z.url({ protocol: /^https?$/, error: 'it is an address such as http://127.0.0.1:4318' }).optional();
const oneOf = <const T extends readonly [string, ...string[]]>(names: T) =>
  z.enum(names, { error: ({ input }) => `${String(input).slice(0, 100)} is not one of ${names.join(', ')}.` });
const protocol = oneOf(protocols).optional();

const variables = z.object({
  OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint,
  OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
  OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: protocol,
  OTEL_TRACES_SAMPLER: oneOf(samplers).default('parentbased_always_on'),
  OTEL_TRACES_SAMPLER_ARG: z.coerce.number().min(0).max(1).default(1),
  OTEL_BSP_SCHEDULE_DELAY: whole.min(1).max(600_000).default(5000),
  OTEL_BSP_EXPORT_TIMEOUT: whole.min(1).max(600_000).default(30_000),
  OTEL_BSP_MAX_QUEUE_SIZE: whole.min(1).max(100_000).default(2048),
  OTEL_BSP_MAX_EXPORT_BATCH_SIZE: whole.min(1).max(100_000).default(512),
});

export interface TracingSettings {
  protocol: (typeof protocols)[number];
  sampler: (typeof samplers)[number];
  /** Share of the traces that `traceidratio` keeps. */
  samplerShare: number;
  batch: { scheduledDelayMillis: number; exportTimeoutMillis: number; maxQueueSize: number; maxExportBatchSize: number };
}

type Environment = Record<string, string | undefined>;

/** Null: nobody asked for traces. `problems`: a line for each variable that is wrong. */
export function readTracing(env: Environment): { tracing: TracingSettings | null; problems: string[] } {
  const isAsked = Boolean(env.OTEL_EXPORTER_OTLP_ENDPOINT || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
  const isOff = env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || env.OTEL_TRACES_EXPORTER === 'none';
  if (!isAsked || isOff) return { tracing: null, problems: [] };
  const given = Object.fromEntries(Object.keys(variables.shape).map((name) => [name, env[name] || undefined]));
  const { data, error } = variables.safeParse(given, { error: rangeProblem });
  if (!data) {
    const instead = 'Mend it, or set OTEL_SDK_DISABLED=true, which turns traces off.';
    return {
      tracing: null,
      problems: error.issues.map(({ path, message }) => `${String(path[0])}: ${message.replace(/\.?$/, '.')} ${instead}`),
    };
  }
  return {
    tracing: {
      protocol: data.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL ?? data.OTEL_EXPORTER_OTLP_PROTOCOL ?? 'http/protobuf',
      sampler: data.OTEL_TRACES_SAMPLER,
      samplerShare: data.OTEL_TRACES_SAMPLER_ARG,
      batch: {
        scheduledDelayMillis: data.OTEL_BSP_SCHEDULE_DELAY,
        exportTimeoutMillis: data.OTEL_BSP_EXPORT_TIMEOUT,
        maxQueueSize: data.OTEL_BSP_MAX_QUEUE_SIZE,
        maxExportBatchSize: Math.min(data.OTEL_BSP_MAX_EXPORT_BATCH_SIZE, data.OTEL_BSP_MAX_QUEUE_SIZE),
      },
    },
    problems: [],
  };
}

/** As the server is called, and the inference host. */
export const serviceNames = { server: 'whetstone', host: 'whetstone-inference' };

/** What the inference host gets of the server's environment: it works in another folder, and is a service of its own. */
export function hostVariables(env: Environment): Record<string, string> {
  const all = Object.entries(env).flatMap(([name, value]) => (name.startsWith('OTEL_') && value ? [[name, value] as const] : []));
  const placed = all.map(([name, value]) => [name, /_(CERTIFICATE|CLIENT_KEY)$/.test(name) ? resolve(value) : value]);
  const name = env.OTEL_SERVICE_NAME;
  return { ...Object.fromEntries(placed), ...(name ? { OTEL_SERVICE_NAME: `${name}-inference` } : {}) };
}
