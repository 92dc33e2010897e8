import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { canonicalJson } from '../canonical.ts';
import type { Queryable } from '../db.ts';
import { insertPoints } from '../history/points.ts';
import { noteSlower } from '../history/regressions.ts';
import type { JobKind, JobServices } from '../jobs/kinds.ts';
import { BenchmarkSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { makeInThread } from '../reports/inThread.ts';
import type { Measurement } from '../reports/make.ts';
import { insertReport } from '../reports/reports.ts';
import { blobPath, findArtifact, insertArtifact, type StoredBlob, storeFile } from '../storage/blobs.ts';
import { requireReadyModel, versionFile } from '../training/sources.ts';
import { codeVersion } from '../version.ts';
import { type Cell, CellsFile, planCells } from './cells.ts';
import { type BenchmarkContext, BenchmarkRequest, readContext, sizesOf } from './context.ts';
import { durationMsMax, requireMeasurable } from './start.ts';
import { benchmarkRow, benchmarkRun } from './tables.ts';

const child = join(import.meta.dirname, 'child.ts');

const requestOf = (job: Job): BenchmarkRequest => BenchmarkRequest.parse(storedSpec(job));

/** Measures model versions, alone on the machine, and makes their report. */
export const benchmarkJob: JobKind = {
  timeLimitMs: durationMsMax + 4 * 3_600_000,

  launch(services, { job, resumeFrom }) {
    const { modelVersionIds, batchSizes, engines, intraOpThreads, instances, scenario, dims, seed, target, settings } = requestOf(job);
    const spec = BenchmarkSpec.parse({
      kind: 'BENCHMARK',
      specVersion: SPEC_VERSION,
      codeVersion,
      cpuThreads: Math.max(...intraOpThreads) * Math.max(...instances),
      models: modelVersionIds.map((id) => modelOf(services, id, dims)),
      batchSizes,
      engines,
      intraOpThreads,
      instances,
      scenario,
      seed,
      target,
      settings,
      resumeFrom,
    });
    return { command: process.execPath, args: [child], env: {}, spec };
  },

  async finish(services, attempt, { result }) {
    const { db } = services;
    const { job, workDir } = attempt;
    const request = requestOf(job);
    const { machine, cells } = CellsFile.parse(JSON.parse(await readFile(join(workDir, String(result.file)), 'utf8')));
    if (canonicalJson(cells.map(planned)) !== canonicalJson(planCells({ ...request, models: request.modelVersionIds }))) {
      throw new Error('The child has measured other cells than it was asked to.');
    }
    const context = readContext(db, job.id, request);
    const measurements: Measurement[] = [];
    for (const cell of cells) measurements.push(await keepSamples(services, workDir, cell));
    const made = await makeInThread(services.config.dataDir, { context, machine, measurements });

    return (tx) => {
      tx.insert(benchmarkRun).values({ jobId: job.id, contextJson: context, machineJson: machine, verdict: made.verdict }).run();
      for (const [n, measurement] of measurements.entries()) {
        const { verdict, reasons } = made.report.rows[n] as (typeof made.report.rows)[number];
        insertRow(tx, context, measurement, { verdict, reasonsJson: reasons });
      }
      const { id: reportId } = insertReport(tx, job.id, made);
      insertPoints(tx, made.report);
      noteSlower(tx, attempt, made.report);
      return { reportId, verdict: made.verdict };
    };
  },

  redo(tx, retried) {
    requireMeasurable(tx, requestOf(retried));
  },
};

const planned = ({ n, model, batchSize, engine, intraOpThreads, instances }: Cell) => ({
  n,
  model,
  batchSize,
  engine,
  intraOpThreads,
  instances,
});

function modelOf(services: JobServices, id: string, dims: BenchmarkRequest['dims']): BenchmarkSpec['models'][number] {
  const version = requireReadyModel(services.db, id);
  const probe = findArtifact(services.db, 'MODEL_VERSION', id, 'PROBE');
  return {
    file: versionFile(services, id, 'ONNX'),
    probe: probe ? blobPath(services.config.dataDir, probe.sha256) : null,
    precision: version.precision,
    dims: sizesOf(version, dims),
  };
}

/** Moves the samples of a cell into the store. */
async function keepSamples(services: JobServices, workDir: string, cell: Cell): Promise<Measurement> {
  const { samples, blocks: _blocks, ...rest } = cell;
  if (!samples) return { ...rest, samples: null };
  const stored = await storeFile(services, join(workDir, samples.name));
  if (stored.sha256 !== samples.sha256) throw new Error('The samples are not those that the child told of.');
  return { ...rest, samples: stored };
}

function insertRow(
  tx: Queryable,
  { jobId, request: { scenario }, models }: BenchmarkContext,
  { n, model, engine, engineVersion, batchSize, intraOpThreads, instances, telemetry, samples }: Measurement,
  judged: Pick<typeof benchmarkRow.$inferInsert, 'verdict' | 'reasonsJson'>,
): void {
  const { versionId, precision, dims } = models[model] as BenchmarkContext['models'][number];
  tx.insert(benchmarkRow)
    .values({
      jobId,
      n,
      modelVersionId: versionId,
      engine,
      engineVersion,
      precision,
      batchSize,
      intraOpThreads,
      instances,
      dimsJson: dims ?? {},
      scenario,
      samplesArtifactId: samples ? samplesArtifact(tx, jobId, n, samples) : null,
      telemetryJson: telemetry,
      ...judged,
    })
    .run();
}

const samplesArtifact = (tx: Queryable, jobId: string, n: number, stored: StoredBlob): string =>
  insertArtifact(tx, stored, { ownerType: 'JOB', ownerId: jobId, kind: 'SAMPLES', name: `samples-${n}.bin` }).id;
