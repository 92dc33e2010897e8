/** Trainings, evaluations, load tests and studies as files, in the forms of a benchmark's report. */
import { ApiError } from '../../errors.ts';
import { requireJob } from '../../jobs/jobs.ts';
import type { Job } from '../../jobs/tables.ts';
import type { StorageServices } from '../../storage/blobs.ts';
import { inTurn } from '../../turns.ts';
import type { ExportedReport, ReportFormat } from '../exports.ts';
import { exportInThread } from '../inThread.ts';
import { runsMax } from './comparisonDocument.ts';
import { evaluateSource, type JobSource, loadTestFacts, studyFacts, trainingSource } from './facts.ts';

/** One training, one evaluation, one load test, one study, or two to four trainings beside each other. `request` is that of `inTurn`. */
export async function exportJobs(services: StorageServices, request: object, ids: string[], format: ReportFormat): Promise<ExportedReport> {
  const jobs = ids.map((id) => requireJob(services.db, id));
  requireReportable(jobs);
  const sources: string[] = [];
  for (const job of jobs) {
    const source = await sourceOf(services, request, job);
    sources.push(await inTurn(request, () => JSON.stringify(source)));
  }
  return exportInThread({ does: 'EXPORT_JOBS', sources, format });
}

async function sourceOf(services: StorageServices, request: object, job: Job): Promise<JobSource> {
  if (job.kind === 'EVALUATE') return evaluateSource(services, job);
  if (job.kind === 'TUNE') return studyFacts(services.db, job);
  return job.kind === 'LOAD_TEST' ? loadTestFacts(services.db, job) : trainingSource(services, request, job);
}

/** Kinds of which one job is a report. */
const alone = ['TRAIN', 'EVALUATE', 'LOAD_TEST', 'TUNE'];

function requireReportable(jobs: Job[]): void {
  if (jobs.length === 1 && alone.includes(jobs[0]?.kind ?? '')) return;
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
  throw new ApiError('INVALID', `\`jobIds\` names ${problem} Give one job of ${alone.join(', ')}, or two to ${runsMax} TRAIN jobs.`);
}
