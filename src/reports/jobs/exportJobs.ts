/** Trainings and evaluations as files, in the forms of a benchmark's report. */
import { createHash } from 'node:crypto';
import { canonicalJson } from '../../canonical.ts';
import { ApiError } from '../../errors.ts';
import { requireJob } from '../../jobs/jobs.ts';
import type { Job } from '../../jobs/tables.ts';
import type { StorageServices } from '../../storage/blobs.ts';
import { type Exportable, type ExportedReport, exportAs, type ReportFormat } from '../exports.ts';
import type { Value } from '../forms/csv.ts';
import type { ReportDocument } from '../forms/document.ts';
import { comparisonDocument, runsMax } from './comparisonDocument.ts';
import { evaluationDocument } from './evaluationDocument.ts';
import { evaluateFacts, JOB_FACTS_VERSION, type TrainingFacts, trainingFacts } from './facts.ts';
import { classTable } from './parts.ts';
import { trainingDocument } from './trainingDocument.ts';

/** One training, one evaluation, or two to four trainings beside each other. `request` is that of `inTurn`. */
export async function exportJobs(services: StorageServices, request: object, ids: string[], format: ReportFormat): Promise<ExportedReport> {
  const jobs = ids.map((id) => requireJob(services.db, id));
  const [first] = jobs;
  if (jobs.length === 1 && first?.kind === 'EVALUATE') {
    const facts = await evaluateFacts(services, first);
    return exportAs(
      exportable(
        'evaluation',
        facts,
        (sha256) => evaluationDocument(facts, sha256),
        () => classTable(facts.evaluation),
      ),
      format,
    );
  }
  requireTrainings(jobs);
  const runs: TrainingFacts[] = [];
  for (const job of jobs) runs.push(await trainingFacts(services, request, job));
  const [run] = runs as [TrainingFacts];
  const table = () => curveTable(runs);
  return exportAs(
    runs.length === 1
      ? exportable('training', run, (sha256) => trainingDocument(run, sha256), table)
      : exportable('comparison', { kind: 'COMPARISON', trainings: runs }, (sha256) => comparisonDocument(runs, sha256), table),
    format,
  );
}

function requireTrainings(jobs: Job[]): void {
  const other = jobs.find(({ kind }) => kind !== 'TRAIN');
  const problem =
    other?.kind === 'BENCHMARK'
      ? 'a BENCHMARK job has a report: ask for `Job.report` and its field `export`.'
      : other
        ? `${jobs.length} jobs, one of them of the kind ${other.kind}.`
        : new Set(jobs.map(({ id }) => id)).size < jobs.length
          ? 'the same job more than once.'
          : jobs.length === 0 || jobs.length > runsMax
            ? `${jobs.length} jobs.`
            : null;
  if (problem === null) return;
  throw new ApiError('INVALID', `\`jobIds\` names ${problem} Give one TRAIN job, one EVALUATE job, or two to ${runsMax} TRAIN jobs.`);
}

function exportable(name: string, facts: object, document: (sha256: string) => ReportDocument, table: Exportable['table']): Exportable {
  const content = canonicalJson({ schemaVersion: JOB_FACTS_VERSION, ...facts });
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { name, content, sha256, document: () => document(sha256), table };
}

/** Every point of every curve. */
const curveTable = (runs: TrainingFacts[]): { head: string[]; rows: Value[][] } => ({
  head: ['model', 'version', 'run', 'curve', 'epoch', 'step', 'value'],
  rows: runs.flatMap(({ model, version, curves }, n) =>
    curves.flatMap(({ name, points }) => points.map(({ epoch, step, value }) => [model, version?.number, n + 1, name, epoch, step, value])),
  ),
});
