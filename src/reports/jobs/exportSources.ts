/** Trainings, evaluations, load tests and studies as files: from what the server has read of them, in a thread of its own. */
import { createHash } from 'node:crypto';
import { canonicalJson } from '../../canonical.ts';
import { type Exportable, type ExportedReport, exportAs, type ReportFormat } from '../exports.ts';
import type { Value } from '../forms/csv.ts';
import type { ReportDocument } from '../forms/document.ts';
import { comparisonDocument } from './comparisonDocument.ts';
import { readDetail } from './detail.ts';
import { evaluationDocument } from './evaluationDocument.ts';
import type { EvaluationFacts, EvaluationSource, JobSource, TrainingFacts, TrainingSource } from './facts.ts';
import { readThumbnails } from './findings.ts';
import { loadTestDocument, rateTable } from './loadTestDocument.ts';
import { classTable } from './parts.ts';
import { studyDocument, trialTable } from './studyDocument.ts';
import { trainingDocument } from './trainingDocument.ts';

/** Counts the forms of these facts. */
const JOB_FACTS_VERSION = 2;

/** One job, or several trainings. */
export async function exportSources(sources: readonly JobSource[], format: ReportFormat): Promise<ExportedReport> {
  return exportAs(await exportableOf(sources), format);
}

async function exportableOf(sources: readonly JobSource[]): Promise<Exportable> {
  const [source] = sources as [JobSource];
  if (source.kind === 'LOAD_TEST') {
    return exportable(
      'load-test',
      source,
      (sha256) => loadTestDocument(source, sha256),
      () => rateTable(source),
    );
  }
  if (source.kind === 'TUNE') {
    return exportable(
      'study',
      source,
      (sha256) => studyDocument(source, sha256),
      () => trialTable(source),
    );
  }
  if (source.kind === 'EVALUATE') {
    const facts = await withDetail(source);
    return exportable(
      'evaluation',
      facts,
      (sha256) => evaluationDocument(facts, sha256, picturesOf(source)),
      () => classTable(facts.evaluation),
    );
  }
  const runs = await Promise.all((sources as TrainingSource[]).map(withDetail));
  const [run] = runs as [TrainingFacts];
  const table = () => curveTable(runs);
  return runs.length === 1
    ? exportable('training', run, (sha256) => trainingDocument(run, sha256, picturesOf(source as TrainingSource)), table)
    : exportable('comparison', { kind: 'COMPARISON', trainings: runs }, (sha256) => comparisonDocument(runs, sha256), table);
}

const picturesOf = ({ evaluation }: { evaluation: EvaluationSource | null }) => readThumbnails(evaluation?.pictures ?? null);

async function withDetail<S extends { evaluation: EvaluationSource | null }>(
  source: S,
): Promise<Omit<S, 'evaluation'> & { evaluation: EvaluationFacts | null }> {
  if (!source.evaluation) return { ...source, evaluation: null };
  const { file, pictures: _, ...evaluation } = source.evaluation;
  return { ...source, evaluation: { ...evaluation, detail: file === null ? null : await readDetail(file) } };
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
