import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readConfig } from '../src/config.ts';
import { parseHostConfig } from '../src/inference/config.ts';
import { startHost } from '../src/inference/host.ts';
import { createLog, type Log } from '../src/log.ts';
import { startTracing } from '../src/otlp.ts';
import { activeSpan, type Tracing } from '../src/tracing.ts';
import { hostVariables, readTracing, type TracingSettings } from '../src/tracingSettings.ts';
import { type CollectedSpan, type Collector, withCollector } from './support/collector.ts';
import { deployed } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, makeInferenceModels, withModelFiles } from './support/inference.ts';
import { logOf, submit, withJobs } from './support/jobs.ts';
import { freePort, withServerProcess } from './support/process.ts';
import { client, postGraphql, type TestServer, withFolder } from './support/server.ts';
import { modelVersionOf } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['brightness']));
afterAll(() => rmSync(models, { recursive: true }));

const callerTrace = '0af7651916cd43dd8448eb211c80319c';
const callerSpan = 'b7ad6b7169203331';
const sampled = `00-${callerTrace}-${callerSpan}-01`;
const unsampled = `00-${callerTrace}-${callerSpan}-00`;

const silent = createLog({ logLevel: 'silent' });

/** Traces of this process, to this collector. */
async function withTracing<T>({ env }: Pick<Collector, 'env'>, use: (tracing: Tracing) => Promise<T>, log: Log = silent): Promise<T> {
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  const tracing = startTracing(readTracing(env).tracing as TracingSettings, 'test', log);
  vi.unstubAllEnvs();
  try {
    return await use(tracing);
  } finally {
    await tracing.stop(1000);
  }
}

/** Makes a process print each module of OpenTelemetry that it loads, but for its interfaces, which prom-client loads. */
const hook = `import { registerHooks } from 'node:module';
registerHooks({ load(url, context, next) {
  if (/@opentelemetry.(?!api.)|src.otlp\\.ts$/.test(url)) console.error('loaded ' + url);
  return next(url, context);
} });`;
const showingModules = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hook)}` };
const loadedIn = (lines: string[]) => lines.filter((line) => line.startsWith('loaded '));

describe('of a server', () => {
  test('one trace goes from the caller through GraphQL to the attempt of a job and the phases of its child, and to the inference host', () =>
    withCollector((collector) =>
      withFolder((dataDir) =>
        withServerProcess({ WHETSTONE_DATA_DIR: dataDir, ...collector.env, ...showingModules }, async (server) => {
          const token = await client({ url: server.url } as TestServer, dataDir).admin();
          const api = { url: server.url, token };
          const rgb = { version: 1, width: 32, height: 32, mode: 'STRETCH', mean: [0, 0, 0], std: [1, 1, 1] };
          const about = { labels: ['red', 'green', 'blue'], preprocess: rgb };
          const file = join(models, 'brightness.onnx');
          const version = await modelVersionOf(api, 'colours', file, about);
          const made = await collector.span('mutation createModel');
          const request = await collector.parentOf(made);
          expect(request).toMatchObject({ name: 'POST /graphql', kind: 2, parentSpanId: '', service: 'whetstone' });
          expect(request.attributes).toMatchObject({ 'http.route': '/graphql', 'http.response.status_code': 200 });
          expect(made.attributes).toEqual({ 'graphql.operation.type': 'mutation' });

          const attempt = await collector.span('job IMPORT_MODEL');
          expect(attempt).toMatchObject({ traceId: made.traceId, parentSpanId: made.spanId, kind: 5, status: 0 });
          expect(attempt.attributes).toEqual({
            'whetstone.job.id': expect.any(String),
            'whetstone.job.kind': 'IMPORT_MODEL',
            'whetstone.job.attempt': 1,
            'whetstone.job.queue_wait_ms': expect.any(Number),
            'whetstone.job.ending': 'SUCCEEDED',
          });
          await collector.span('phase inspection');
          const phases = collector.spans().filter(({ parentSpanId }) => parentSpanId === attempt.spanId);
          expect(phases.map(({ name }) => name)).toEqual(['phase start', 'phase inspection']);
          expect(new Set(phases.map(({ traceId }) => traceId))).toEqual(new Set([made.traceId]));
          for (const { startNs, endNs } of phases) {
            expect([startNs >= attempt.startNs, endNs >= startNs, endNs <= attempt.endNs]).toEqual([true, true, true]);
          }
          expect(phases[1]?.startNs).toBe(phases[0]?.endNs);

          await deployed(api, 'colours', version);
          const image = await sharp({ create: { width: 4, height: 3, channels: 3, background: '#10e020' } })
            .png()
            .toBuffer();
          const query = 'mutation ($i: InferInput!) { infer(input: $i) { prediction { classes { label } } userErrors { message } } }';
          const headers = { traceparent: sampled, tracestate: 'vendor=1' };
          const input = { deployment: 'colours', image: image.toString('base64'), top: 1 };
          const { data } = await postGraphql(server.url, query, { i: input }, token, headers);
          expect(data.infer.prediction.classes).toEqual([{ label: 'green' }]);
          const infer = await collector.span('mutation infer');
          const run = await collector.span('POST /v2/models/{model}/predict');
          expect(await collector.parentOf(infer)).toMatchObject({ traceId: callerTrace, parentSpanId: callerSpan });
          expect(run).toMatchObject({ traceId: callerTrace, parentSpanId: infer.spanId, kind: 2, service: 'whetstone-inference' });
          expect(run.attributes).toMatchObject({ 'whetstone.model': 'colours', 'whetstone.revision': 1, 'http.response.status_code': 200 });

          // Its log names the trace.
          await server.line((line) => line.includes(`"traceId":"${callerTrace}"`) && line.includes('"msg":"request"'));
          expect(loadedIn(server.lines).length).toBeGreaterThan(10);
          expect(collector.spans().filter(({ name }) => /health|ready|metrics/.test(name))).toEqual([]);
        }),
      ),
    ));

  test('nothing of OpenTelemetry is loaded without an endpoint, whatever a caller sends', () =>
    withFolder((dataDir) =>
      withServerProcess({ WHETSTONE_DATA_DIR: dataDir, OTEL_SERVICE_NAME: 'x', ...showingModules }, async (server) => {
        await postGraphql(server.url, '{ __typename }', {}, undefined, { traceparent: sampled });
        server.kill('SIGTERM');
        expect(await server.exit).toEqual({ code: 0, signal: null });
        expect(loadedIn(server.lines)).toEqual([]);
      }),
    ));

  test('a collector that cannot be reached is said once, and neither a request nor the stop waits for it', async () => {
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${await freePort()}`,
      OTEL_EXPORTER_OTLP_TIMEOUT: '50',
      OTEL_BSP_SCHEDULE_DELAY: '1',
    };
    await withFolder((dataDir) =>
      withServerProcess({ WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'debug', ...env }, async (server) => {
        const failures = () => server.lines.filter((line) => line.includes('"msg":"OpenTelemetry"')).length;
        await eventually(async () => {
          expect((await postGraphql(server.url, '{ __typename }')).status).toBe(200);
          expect(failures()).toBeGreaterThan(2);
        });
        server.kill('SIGTERM');
        expect(await server.exit).toEqual({ code: 0, signal: null });
        expect(server.lines.filter((line) => line.includes('Traces cannot be sent'))).toHaveLength(1);
      }),
    );
  });
});

describe('of a job', () => {
  test('each attempt is a span of the trace that asked for it, its child knows it, and so do the jobs that it makes', () =>
    withCollector((collector) =>
      withTracing(collector, (tracing) =>
        withJobs(
          async (jobs) => {
            const asking = tracing.start('asking', { parent: { traceparent: sampled } });
            const { id } = activeSpan.run(asking, () =>
              jobs.submit({ steps: [{ show: 'TRACEPARENT' }, 'hello', { phase: 'training' }, { signal: 'SIGKILL', attempt: 1 }, 'ok'] }),
            );
            asking.end();
            expect(jobs.job(id).traceparent).toBe(asking.context.traceparent);
            await jobs.start();
            await jobs.ended(id);
            const attempts = await eventually(() => {
              const found = collector.spans().filter(({ name }) => name === 'job IMPORT_MODEL');
              expect(found).toHaveLength(2);
              return found;
            });
            expect(attempts.map(({ traceId, parentSpanId, status }) => ({ traceId, parentSpanId, status }))).toEqual([
              { traceId: callerTrace, parentSpanId: asking.context.traceparent.split('-')[2], status: 2 },
              { traceId: callerTrace, parentSpanId: asking.context.traceparent.split('-')[2], status: 0 },
            ]);
            expect(attempts.map(({ attributes }) => [attributes['whetstone.job.attempt'], attributes['whetstone.job.ending']])).toEqual([
              [1, 'CRASHED'],
              [2, 'SUCCEEDED'],
            ]);
            expect(await logOf(jobs, id)).toEqual(attempts.map(({ spanId }) => `00-${callerTrace}-${spanId}-01`));
            const parent = activeSpan.run(asking, () => submit(jobs.db, { coordinates: true }));
            const trial = activeSpan.run(tracing.start('an earlier trial', { parent: undefined }), () =>
              submit(jobs.db, { parentId: parent.id }),
            );
            expect(trial.traceparent).toBe(parent.traceparent);
          },
          { tracing },
        ),
      ),
    ));

  test('of a trace that is not sampled nothing is sent, and its child is not sampled either', () =>
    withCollector((collector) =>
      withTracing(collector, async (tracing) => {
        await withJobs(
          async (jobs) => {
            const asking = tracing.start('asking', { parent: { traceparent: unsampled } });
            const { id } = activeSpan.run(asking, () => jobs.submit({ steps: [{ show: 'TRACEPARENT' }, 'hello', 'ok'] }));
            await jobs.start();
            await jobs.ended(id);
            expect((await logOf(jobs, id))[0]).toMatch(new RegExp(`^00-${callerTrace}-[0-9a-f]{16}-00$`));
          },
          { tracing },
        );
        tracing.start('a sampled one', { parent: undefined }).end();
        await collector.span('a sampled one');
        expect(collector.spans().map(({ name }) => name)).toEqual(['a sampled one']);
      }),
    ));
});

describe('of the inference host', () => {
  test('a request is a span of its caller, with the four parts of its time', () =>
    withCollector((collector) =>
      withTracing(collector, async (tracing) => {
        const { folder, settings } = await withModelFiles({ models: [{ name: 'identity', deadlineMs: 30_000 }] });
        const host = await startHost(parseHostConfig(settings, folder, 8), silent, undefined, tracing);
        try {
          const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
          const { status, headers } = await inferJson(host.url, 'identity', body, { headers: { traceparent: sampled } });
          expect(status).toBe(200);
          await inferJson(host.url, 'identity', body, { headers: { traceparent: unsampled } });
          await inferJson(host.url, 'nothing', body, { headers: { traceparent: 'not one' } });
          const [answered, refused] = await eventually(() => {
            expect(collector.spans()).toHaveLength(2);
            return collector.spans() as [CollectedSpan, CollectedSpan];
          });
          expect(answered).toMatchObject({
            name: 'POST /v2/models/{model}/infer',
            traceId: callerTrace,
            parentSpanId: callerSpan,
            kind: 2,
          });
          const parts = /queue;dur=(.+), preprocessing;dur=(.+), compute;dur=(.+), postprocessing;dur=(.+)/.exec(
            String(headers['server-timing']),
          );
          const inSpan = ['queue', 'preprocessing', 'compute', 'postprocessing'].map((part) => answered.attributes[`whetstone.${part}_ms`]);
          expect(inSpan.map((ms) => Number(ms).toFixed(3))).toEqual(parts?.slice(1));
          expect(answered.attributes).toMatchObject({ 'whetstone.model': 'identity', 'whetstone.revision': 1, 'whetstone.items': 1 });
          expect(refused).toMatchObject({ parentSpanId: '', attributes: { 'http.response.status_code': 404 } });
        } finally {
          await host.stop();
          rmSync(folder, { recursive: true });
        }
      }),
    ));
});

describe('settings', () => {
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' };

  test('an endpoint switches traces on; OpenTelemetry’s own switches turn them off', () => {
    expect(readTracing({}).tracing).toBeNull();
    expect(readTracing({ ...endpoint, OTEL_SDK_DISABLED: 'true' }).tracing).toBeNull();
    expect(readTracing({ ...endpoint, OTEL_TRACES_EXPORTER: 'none' }).tracing).toBeNull();
    expect(readConfig({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://127.0.0.1:4318/v1/traces' }).tracing).toMatchObject({
      protocol: 'http/protobuf',
      sampler: 'parentbased_always_on',
    });
  });

  test('a share of new traces is kept, of a sampled caller all, and of one that is not none', () =>
    withCollector(async ({ env }) => {
      const share = { ...env, OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0.25' };
      await withTracing({ env: share }, async (tracing) => {
        const flags = (parent?: string) =>
          Array.from({ length: 1000 }, () => {
            const { context } = tracing.start('x', { parent: parent === undefined ? undefined : { traceparent: parent } });
            return context.traceparent.slice(-2);
          });
        const kept = flags().filter((flag) => flag === '01').length;
        expect(kept).toBeGreaterThan(170);
        expect(kept).toBeLessThan(330);
        expect(new Set(flags(sampled))).toEqual(new Set(['01']));
        expect(new Set(flags(unsampled))).toEqual(new Set(['00']));
      });
    }));

  test.each([
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
    ['OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc'],
    ['OTEL_TRACES_SAMPLER', 'sometimes'],
    ['OTEL_TRACES_SAMPLER_ARG', '2'],
    ['OTEL_BSP_MAX_QUEUE_SIZE', '0'],
  ])('%s=%s is refused by the name of the variable, and says how to start without traces', (variable, value) => {
    expect(() => readConfig({ ...endpoint, [variable]: value })).toThrow(new RegExp(`\n${variable}: .*OTEL_SDK_DISABLED=true`));
    expect(readConfig({ ...endpoint, [variable]: value, OTEL_SDK_DISABLED: 'true' }).tracing).toBeNull();
  });

  test('the inference host gets them, with a name of its own; the child of a job does not', () => {
    const env = {
      ...endpoint,
      OTEL_SERVICE_NAME: 'vision',
      OTEL_EXPORTER_OTLP_HEADERS: 'key=secret',
      OTEL_EXPORTER_OTLP_CERTIFICATE: 'ca.pem',
    };
    expect(hostVariables({ ...env, HOME: '/' })).toEqual({
      ...env,
      OTEL_SERVICE_NAME: 'vision-inference',
      OTEL_EXPORTER_OTLP_CERTIFICATE: join(process.cwd(), 'ca.pem'),
    });
    const { hostEnv, childEnv } = readConfig(env);
    expect(hostEnv.OTEL_EXPORTER_OTLP_HEADERS).toBe('key=secret');
    expect(Object.keys(childEnv).filter((name) => name.startsWith('OTEL_'))).toEqual([]);
    expect(readConfig({ OTEL_SERVICE_NAME: 'vision' }).hostEnv).toEqual({});
  });

  test('spans go out as protobuf unless JSON is asked for', () =>
    withCollector(async ({ env, receiver }) => {
      const { OTEL_EXPORTER_OTLP_PROTOCOL: _json, ...defaults } = env;
      await withTracing({ env: defaults }, async (tracing) => {
        tracing.start('x', { parent: undefined }).end();
        await eventually(() => expect(receiver.received).toHaveLength(1));
        expect(receiver.received[0]).toMatchObject({ path: '/v1/traces', headers: { 'content-type': 'application/x-protobuf' } });
      });
    }));
});
