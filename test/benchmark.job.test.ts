import { execFileSync } from 'node:child_process';
import { createHash, randomUUIDv7 } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { benchmarkRow, verdicts } from '../src/benchmark/tables.ts';
import { watchJob } from '../src/cli/watch.ts';
import { dataset, datasetVersion } from '../src/datasets/tables.ts';
import { inTransaction } from '../src/db.ts';
import { job } from '../src/jobs/tables.ts';
import { opaqueId } from '../src/naming.ts';
import type { Report } from '../src/reports/report.ts';
import { findReportOf, remakeReport } from '../src/reports/reports.ts';
import type { StoredReport } from '../src/reports/tables.ts';
import { verifyReport } from '../src/reports/verify.ts';
import { blobPath, insertArtifact, placingBlobs, storeFile } from '../src/storage/blobs.ts';
import { evaluation } from '../src/training/tables.ts';
import { makeBenchmarkModels } from './support/benchmark.ts';
import { adminPassword, type TestServer, withServer } from './support/server.ts';
import { type Api, ask, jobWhen, modelVersionOf, mutate, succeeded } from './support/training.ts';

const models = makeBenchmarkModels();
const dataDir = mkdtempSync(join(tmpdir(), 'whetstone-'));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

/** A server that runs until `stop`. */
async function start(): Promise<{ server: TestServer; stop: () => Promise<void> }> {
  const end = Promise.withResolvers<void>();
  const started = Promise.withResolvers<TestServer>();
  const running = withServer(
    (server) => {
      started.resolve(server);
      return end.promise;
    },
    { WHETSTONE_DATA_DIR: dataDir },
  );
  running.catch(started.reject);
  const server = await started.promise;
  return {
    server,
    async stop() {
      end.resolve();
      await running;
    },
  };
}

const rawId = (opaque: string): string => Buffer.from(opaque, 'base64url').toString().split(':')[1] as string;

/** What a training leaves beside an ONNX version: its probe set and an evaluation. */
async function addProbeAndAccuracy({ services }: TestServer, versionId: string): Promise<void> {
  const { db } = services;
  const file = join(dataDir, 'work', 'probe.safetensors');
  copyFileSync(join(models, 'classifier.probe'), file);
  const probe = await placingBlobs(() => storeFile(services, file));
  const [datasetId, datasetVersionId] = [randomUUIDv7(), randomUUIDv7()];
  inTransaction(db, (tx) => {
    const { id: artifactId } = insertArtifact(tx, probe, { ownerType: 'MODEL_VERSION', ownerId: versionId, kind: 'PROBE', name: 'probe' });
    tx.insert(dataset).values({ id: datasetId, name: 'digits', task: 'CLASSIFICATION', createdAt: 0 }).run();
    const version = {
      id: datasetVersionId,
      datasetId,
      number: 1,
      state: 'READY',
      contentHash: 'd'.repeat(64),
      splitSeed: 0,
      createdAt: 0,
    } as const;
    tx.insert(datasetVersion).values(version).run();
    const [jobId, earlierId] = tx
      .select({ id: job.id })
      .from(job)
      .all()
      .map(({ id }) => id) as [string, string];
    const metricsJson = { images: 360, top1: 0.975, top5: 1, loss: 0.1, macroTop1: 0.97 };
    const about = { modelVersionId: versionId, datasetVersionId, split: 'val', engine: 'torch', artifactId, jobId } as const;
    tx.insert(evaluation)
      .values({ id: randomUUIDv7(), ...about, metricsJson, createdAt: 1 })
      .run();
    tx.insert(evaluation)
      .values({ id: randomUUIDv7(), ...about, jobId: earlierId, metricsJson: { ...metricsJson, top1: 0.1 }, createdAt: 0 })
      .run();
  });
}

const reportFields = `id sha256 schemaVersion verdict verified simple { headline points }
  technical {
    profile scenario target machine { cores } baseline settings
    models { name number sha256 accuracy { metric value dataset ofParent } modelVersion { id } }
    rows {
      n model engine batchSize intraOpThreads instances verdict reasons { code message } sampleCount samplesSha256 samplesUrl itemsPerSecond elapsedNs
      latency { meanNs percentiles { percent kind ns lowNs highNs } }
      gate { reference inputs } warmup { runs } memory { increaseBytes } noise { contention } gpu { utilizationPercent reason } cold { loadNs } stability { windows }
    }
    deltas { n verdict says throughputRatio } choice { n says steps { rule kept } }
  }
  csv: export(format: CSV) { fileName mediaType content } json: export(format: JSON) { content } markdown: export(format: MARKDOWN) { content }`;

describe('a benchmark of two versions', () => {
  let running: Awaited<ReturnType<typeof start>>;
  let api: Api;
  let trained: string;
  let foreign: string;
  let open: string;
  let checked: { jobId: string; content: string };

  const startInput = (change: object = {}) => ({
    modelVersionIds: [trained, foreign],
    batchSizes: [2, 1, 2],
    engines: ['ONNXRUNTIME_CUDA', 'ONNXRUNTIME_CPU'],
    intraOpThreads: [1],
    secondsMin: 0.5,
    warmupSecondsMax: 0.2,
    secondsMax: 0.5,
    ...change,
  });

  const startAgain = async () => {
    running = await start();
    const { accessToken } = await running.server.login('engineer', adminPassword);
    api = { url: running.server.url, token: accessToken };
  };

  beforeAll(async () => {
    running = await start();
    api = { url: running.server.url, token: await running.server.as('ENGINEER') };
    trained = await modelVersionOf(api, 'digits', join(models, 'classifier.onnx'));
    foreign = await modelVersionOf(api, 'foreign', join(models, 'fixed.onnx'));
    open = await modelVersionOf(api, 'open', join(models, 'open.onnx'));
    await addProbeAndAccuracy(running.server, rawId(trained));
  }, 240_000);

  afterAll(() => running.stop());

  test('is refused with what is wrong', async () => {
    const refusals: [object, string, string][] = [
      [{ modelVersionIds: [] }, 'modelVersionIds', 'at least one'],
      [{ modelVersionIds: [open], secondsMin: null, secondsMax: null }, 'dims', 'image[2], image[3]'],
      [{ modelVersionIds: [foreign], batchSizes: [1, 4] }, 'batchSizes', 'a batch of 2 only'],
      [{ dims: [{ name: 'height', size: 3 }] }, 'dims', 'No model has a dimension height. There are: batch.'],
      [{ intraOpThreads: [1000] }, 'intraOpThreads', 'cores'],
      [{ intraOpThreads: [0] }, 'intraOpThreads', ''],
      [{ instances: [2] }, 'instances', 'MULTI_STREAM or OFFLINE'],
      [{ scenario: 'MULTI_STREAM', instances: [1000] }, 'instances', 'cores'],
      [{ scenario: 'OFFLINE', target: 'LATENCY' }, 'target', 'THROUGHPUT or MEMORY'],
      [{ engines: [] }, 'engines', 'at least one engine'],
      [{ secondsMin: 9, secondsMax: 3 }, 'secondsMax', 'not shorter'],
      [{ accuracyDropMax: 2 }, 'accuracyDropMax', ''],
      [{ batchSizes: Array.from({ length: 20 }, (_, i) => i + 1), secondsMax: 3600, secondsMin: 3600 }, '', 'hours'],
    ];
    for (const [change, field, message] of refusals) {
      const query =
        'mutation ($input: StartBenchmarkInput!) { startBenchmark(input: $input) { job { id } userErrors { code field message } } }';
      const { data, errors } = await ask(api, query, { input: startInput(change) });
      expect(errors).toBeUndefined();
      expect(data.startBenchmark.job).toBeNull();
      const [error] = data.startBenchmark.userErrors;
      expect([error.field?.[0] ?? '', error.message]).toEqual([field, expect.stringContaining(message)]);
    }
  });

  test('tells how long it takes without starting anything', async () => {
    const input = startInput({
      dryRun: true,
      profile: 'FULL',
      secondsMin: null,
      secondsMax: null,
      warmupSecondsMax: null,
      engines: ['ONNXRUNTIME_CPU'],
    });
    const fields = 'job { id } configurations estimatedDurationMs durationMsMax';
    const estimate = await mutate(api, 'startBenchmark', input, fields);
    // 2 versions × 2 batch sizes of 3 s, 2 s of warm-up and 30 s; at most 30 and 120.
    expect(estimate).toMatchObject({ job: null, configurations: 4, estimatedDurationMs: 4 * 35_000, durationMsMax: 4 * 153_000 });
    const { data } = await ask(api, '{ jobs(filter: {kinds: [BENCHMARK]}) { nodes { id } } }');
    expect(data.jobs.nodes).toEqual([]);
  });

  test('is started by an engineer, and read by a viewer, as are the engines', async () => {
    const viewer = { url: api.url, token: await running.server.as('VIEWER') };
    const query = 'mutation ($input: StartBenchmarkInput!) { startBenchmark(input: $input) { job { id } } }';
    expect((await ask(viewer, query, { input: startInput() })).errors?.[0].extensions.code).toBe('FORBIDDEN');
    const { data } = await ask(viewer, '{ engines { name title version available reason } }');
    expect(data.engines).toEqual([
      {
        name: 'ONNXRUNTIME_CPU',
        title: expect.any(String),
        version: expect.stringMatching(/^onnxruntime \d/),
        available: true,
        reason: null,
      },
      expect.objectContaining({ name: 'ONNXRUNTIME_NATIVE', title: 'ONNX Runtime in native threads', version: data.engines[0].version }),
      expect.objectContaining({ name: 'OPENVINO', title: 'OpenVINO on the processor', version: expect.stringMatching(/^openvino/) }),
      expect.objectContaining({ name: 'ONNXRUNTIME_CUDA', title: expect.any(String) }),
      expect.objectContaining({ name: 'ONNXRUNTIME_NATIVE_CUDA', version: data.engines[0].version }),
      expect.objectContaining({ name: 'ONNXRUNTIME_NATIVE_TENSORRT', version: data.engines[0].version }),
    ]);
    for (const { available, reason } of data.engines) expect(available).toBe(reason === null);
  });

  test('measures every configuration alone, and its report is a function of what is stored', async () => {
    const started = await mutate(api, 'startBenchmark', startInput({ idempotencyKey: 'one' }), 'job { id kind spec }');
    expect(started.job).toMatchObject({
      kind: 'BENCHMARK',
      spec: { batchSizes: [1, 2], engines: ['ONNXRUNTIME_CPU', 'ONNXRUNTIME_CUDA'] },
    });
    const again = await mutate(api, 'startBenchmark', startInput({ idempotencyKey: 'one' }), 'job { id }');
    expect(again.job.id).toBe(started.job.id);
    const { result } = await succeeded(api, started.job.id);
    const { services } = running.server;
    const jobId = rawId(started.job.id);
    expect(
      services.db
        .select()
        .from(job)
        .all()
        .find(({ id }) => id === jobId)?.slotsNeeded,
    ).toBe(-1);

    const query = `query ($id: ID!) { job(id: $id) { report { ${reportFields} } } }`;
    const { data, errors } = await ask(api, query, { id: started.job.id });
    expect(errors).toBeUndefined();
    const { report } = data.job;
    const { technical } = report;
    expect(result).toMatchObject({ reportId: report.id, verdict: report.verdict });
    expect(report).toMatchObject({ schemaVersion: 4, verified: true });
    expect(createHash('sha256').update(report.json.content).digest('hex')).toBe(report.sha256);

    expect(technical.models).toMatchObject([
      {
        name: 'digits',
        number: 1,
        accuracy: { metric: 'TOP1', value: 0.975, dataset: 'digits', ofParent: false },
        modelVersion: { id: trained },
      },
      { name: 'foreign', number: 1, accuracy: null },
    ]);
    const measurable = technical.rows.filter((row: { engine: string }) => row.engine === 'ONNXRUNTIME_CPU');
    expect(
      measurable.map((row: { model: number; batchSize: number; verdict: string; gate: object }) => [row.model, row.batchSize, row.gate]),
    ).toEqual([
      [0, 1, { reference: 'PROBE', inputs: 32 }],
      [0, 2, { reference: 'PROBE', inputs: 32 }],
      [1, 1, null],
      [1, 2, { reference: 'SELF_REFERENCE', inputs: 32 }],
    ]);
    expect(measurable[2]).toMatchObject({ verdict: 'UNAVAILABLE', reasons: [{ code: 'BATCH_FIXED' }], latency: null, samplesUrl: null });
    const stored = services.db.select().from(benchmarkRow).all();
    for (const row of technical.rows) {
      expect(verdicts).toContain(row.verdict);
      expect(stored.find(({ n }) => n === row.n)).toMatchObject({
        verdict: row.verdict,
        reasonsJson: row.reasons.map(({ code }: { code: string }) => expect.objectContaining({ code })),
      });
      expect(row.gpu.utilizationPercent === null && row.gpu.reason !== null).toBe(true);
      if (row.verdict !== 'VALID') expect(row.reasons.length).toBeGreaterThan(0);
    }
    expect(technical.baseline).toBe(0);
    expect(report.csv.content.split('\r\n')).toHaveLength(technical.rows.length + 2);
    expect(report.markdown.content).toContain(report.sha256);
    checked = { jobId, content: report.json.content };
  }, 240_000);

  test('keeps samples from which NumPy makes the same numbers', async () => {
    const { data } = await ask(api, `{ reports(first: 1) { nodes { ${reportFields} } } }`);
    const { rows } = data.reports.nodes[0].technical;
    const python = join(import.meta.dirname, '..', 'trainer', '.venv', 'bin', 'python');
    let compared = 0;
    for (const row of rows.filter(({ samplesUrl }: { samplesUrl: string | null }) => samplesUrl)) {
      const bytes = Buffer.from(await (await fetch(new URL(row.samplesUrl, api.url))).arrayBuffer());
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(row.samplesSha256);
      const file = join(models, `${row.n}.bin`);
      writeFileSync(file, bytes);
      const script = join(import.meta.dirname, 'support', 'statistics.py');
      const found = JSON.parse(execFileSync(python, ['-P', script, String(row.batchSize), file], { encoding: 'utf8' }));
      expect(found).toMatchObject({ count: row.sampleCount, itemsPerSecond: row.itemsPerSecond });
      expect(found.mean).toBeCloseTo(row.latency.meanNs, 3);
      for (const { percent, kind, ns, lowNs, highNs } of row.latency.percentiles) {
        const [foundKind, foundNs, foundLowNs, foundHighNs] = found.percentiles[10 * percent];
        expect([kind, ns]).toEqual([foundKind, foundNs]);
        // Differences between the rounds widen the interval.
        if (lowNs !== null) expect(lowNs).toBeLessThanOrEqual(foundLowNs);
        if (highNs !== null) expect(highNs).toBeGreaterThanOrEqual(foundHighNs);
      }
      compared += 1;
    }
    expect(compared).toBeGreaterThanOrEqual(3);
  });

  test('is followed by `watch` to its result', async () => {
    const written: string[] = [];
    const output = { isTTY: false, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
    expect(await watchJob({ url: api.url, accessToken: async () => api.token }, opaqueId('Job', checked.jobId), output)).toBe(true);
    const lines = written.join('').trim().split('\n');
    expect(lines.filter((line) => line.includes('phase measurement'))).toHaveLength(1);
    expect(lines.at(-1)).toMatch(/^result: .+ answers an image in .+ and does .+ images a second\. Use .+\.$/);
  });

  test('is found by its job and by the versions that it measured', async () => {
    const count = async (filter: string) =>
      (await ask(api, `{ reports(filter: ${filter}) { nodes { id job { kind } } } }`)).data.reports.nodes.length;
    expect(await count(`{ modelVersionId: "${foreign}" }`)).toBe(1);
    expect(await count(`{ modelVersionId: "${open}" }`)).toBe(0);
    const { data } = await ask(api, '{ reports { nodes { id job { id report { id } } } } }');
    const [node] = data.reports.nodes;
    expect(await count(`{ jobId: "${node.job.id}" }`)).toBe(1);
    expect((await ask(api, 'query ($id: ID!) { report(id: $id) { sha256 } node(id: $id) { id } }', { id: node.id })).data).toMatchObject({
      report: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
      node: { id: node.id },
    });
  });

  test('is compared with another one, which are two', async () => {
    const { data } = await ask(api, '{ reports { nodes { id } } }');
    const [{ id }] = data.reports.nodes;
    const query = `query ($ids: [ID!]!) { compareReports(ids: $ids) {
      differences { name } rows { configuration verdict timeRatio before { n samplesUrl } after { n } } } }`;
    const same = (await ask(api, query, { ids: [id, id] })).data.compareReports;
    expect(same.differences).toEqual([]);
    expect(same.rows.length).toBeGreaterThan(2);
    for (const { verdict, before, after } of same.rows) {
      expect(after.n).toBe(before.n);
      expect(['NO_DIFFERENCE', 'UNDECIDED', 'NOT_COMPARABLE']).toContain(verdict);
    }
    const { errors } = await ask(api, query, { ids: [id] });
    expect(errors).toMatchObject([{ message: 'Two reports are compared; `ids` names 1.', extensions: { code: 'INVALID' } }]);
  });

  test('stays what it was when a version is deleted', async () => {
    const admin = { url: api.url, token: await running.server.admin() };
    await mutate(admin, 'deleteModelVersion', { modelVersionId: foreign }, 'modelVersion { id }');
    const { data } = await ask(api, '{ reports { nodes { verified technical { models { name modelVersion { id } } } } } }');
    expect(data.reports.nodes).toEqual([
      {
        verified: true,
        technical: {
          models: [
            { name: 'digits', modelVersion: { id: trained } },
            { name: 'foreign', modelVersion: null },
          ],
        },
      },
    ]);
  });

  test('whose samples were changed on the disk does not verify', async () => {
    const { services } = running.server;
    const { rows } = JSON.parse(checked.content) as Report;
    const path = blobPath(dataDir, String(rows[0]?.samples?.sha256));
    const bytes = readFileSync(path);
    const changed = Buffer.from(bytes);
    changed.writeUInt8((changed.readUInt8(0) + 1) % 256, 0);
    writeFileSync(path, changed);
    expect((await remakeReport(services, checked.jobId)).content).not.toBe(checked.content);
    writeFileSync(path, bytes);
    expect((await remakeReport(services, checked.jobId)).content).toBe(checked.content);
  });

  test('is verified once, however many ask at the same time', async () => {
    const { services } = running.server;
    const stored = findReportOf(services.db, checked.jobId) as StoredReport;
    const [first, second] = [verifyReport(services, stored), verifyReport(services, { ...stored })];
    expect(second).toBe(first);
    expect(await first).toBe(true);
  });

  test('of a model with open height and width takes them from its preprocessing', async () => {
    const preprocess = { version: 1, width: 9, height: 8, mode: 'STRETCH', mean: [0, 0, 0], std: [1, 1, 1] };
    const sized = await modelVersionOf(api, 'sized', join(models, 'open.onnx'), { preprocess });
    const only = { modelVersionIds: [sized], batchSizes: [1], engines: ['ONNXRUNTIME_CPU'] };
    const { job } = await mutate(api, 'startBenchmark', startInput(only), 'job { id }');
    const { result } = await jobWhen(api, job.id, ({ state }) => state === 'SUCCEEDED');
    const query = 'query ($id: ID!) { report(id: $id) { verified technical { models { dims } rows { verdict } } } }';
    const { report } = (await ask(api, query, { id: result.reportId })).data;
    expect(report).toMatchObject({ verified: true, technical: { models: [{ dims: { 'image[2]': 8, 'image[3]': 9 } }] } });
    expect(['VALID', 'UNSTABLE']).toContain(report.technical.rows[0].verdict);

    const start = 'mutation ($input: StartBenchmarkInput!) { startBenchmark(input: $input) { userErrors { field message } } }';
    const contradicted = await ask(api, start, { input: startInput({ ...only, dims: [{ name: 'image[2]', size: 64 }] }) });
    expect(contradicted.data.startBenchmark.userErrors).toEqual([
      { field: ['dims'], message: '`dims`: image[2] is 64, but the preprocessing makes 8. Leave it out.' },
    ]);
  });

  test('is byte-identical in another time zone, locale and year', async () => {
    await running.stop();
    const shift = `const real = Date; globalThis.Date = class extends real {
      constructor(...args) { if (args.length > 0) super(...args); else super(real.now() + 40 * 31_557_600_000); }
      static now() { return real.now() + 40 * 31_557_600_000; } };`;
    const remake = (env: Record<string, string>, args: string[]) => {
      const script = join(import.meta.dirname, 'support', 'remakeReport.ts');
      const said = execFileSync(process.execPath, [...args, script, dataDir, checked.jobId], {
        env: { PATH: process.env.PATH, ...env },
        encoding: 'utf8',
      });
      const [content, about] = said.trim().split('\n') as [string, string];
      return { content, about: JSON.parse(about) };
    };
    const here = remake({ TZ: 'UTC', LC_ALL: 'C' }, []);
    const there = remake({ TZ: 'Asia/Tokyo', LC_ALL: 'de_DE.UTF-8' }, ['--import', `data:text/javascript,${encodeURIComponent(shift)}`]);
    expect(there.about.year).toBeGreaterThan(here.about.year + 30);
    expect([here.about.midnight, there.about.midnight]).toEqual([0, 9]);
    expect([here.about.number, there.about.number]).toEqual(['1,234.5', '1.234,5']);
    expect(here.content).toBe(checked.content);
    expect(there.content).toBe(checked.content);
  });

  test('goes on behind the rounds that it has measured when the server was stopped', async () => {
    await startAgain();
    const input = startInput({
      modelVersionIds: [trained],
      engines: ['ONNXRUNTIME_CPU'],
      batchSizes: [1, 2, 3],
      secondsMin: 2,
      secondsMax: 2,
    });
    const { job: started } = await mutate(api, 'startBenchmark', input, 'job { id }');
    const count = ({ events }: { events: { __typename: string; attempt: number; phase?: string }[] }, what: string, attempt: number) =>
      events.filter((event) => (event.phase ?? event.__typename) === what && event.attempt === attempt).length;
    await jobWhen(api, started.id, (told) => count(told, 'JobCheckpointEvent', 1) >= 3);
    await running.stop();

    await startAgain();
    const ended = await succeeded(api, started.id);
    expect(ended.attempts.map(({ state, charged }: { state: string; charged: boolean }) => [state, charged])).toEqual([
      ['SUSPENDED', false],
      ['SUCCEEDED', false],
    ]);
    const made = ended.events.filter((e: { __typename: string }) => e.__typename === 'JobArtifactEvent');
    expect(made.map(({ attempt }: { attempt: number }) => attempt)).toEqual([2, 2, 2]);
    // A measurement has 10 rounds at most, in both attempts together.
    expect(count(ended, 'measurement', 2)).toBeLessThanOrEqual(10 - count(ended, 'JobCheckpointEvent', 1));
    const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { report { verified technical { rows { sampleCount } } } } }', {
      id: started.id,
    });
    expect(data.job.report.verified).toBe(true);
    for (const { sampleCount } of data.job.report.technical.rows) expect(sampleCount).toBeGreaterThan(0);
  }, 240_000);

  test('is not repeated when a version of it is gone', async () => {
    const { services } = running.server;
    const { id } = services.db.select().from(job).where(eq(job.kind, 'BENCHMARK')).all()[0] as { id: string };
    services.db.update(job).set({ state: 'FAILED' }).where(eq(job.id, id)).run();
    const query = 'mutation ($id: ID!) { retryJob(input: { jobId: $id }) { job { id } userErrors { code message } } }';
    const { data } = await ask(api, query, { id: Buffer.from(`Job:${id}`).toString('base64url') });
    expect(data.retryJob).toEqual({
      job: null,
      userErrors: [{ code: 'INVALID', message: expect.stringMatching(/^Version \d+ of the model .+ was deleted: use another one\.$/) }],
    });
  });
});
