import type { Config } from '../config.ts';
import type { Queryable } from '../db.ts';
import { type EngineName, servingEngine } from '../engine/engines.ts';
import { hostEngineOf, ModelEngine } from '../engine/hostEngine.ts';
import { batchSymbolOf } from '../engine/shapes.ts';
import { refuse } from '../errors.ts';
import { type ModelConfig, permitsOf, threadsMaxOf } from '../inference/config.ts';
import { worthwhile } from '../inference/runTimes.ts';
import { OnnxMeta } from '../jobs/results.ts';
import type { ModelVersion } from '../models/tables.ts';
import type { Report, ReportRow } from '../reports/report.ts';
import { findReportOf, readContent } from '../reports/reports.ts';

/** What AUTO is where the native runtime is built. */
const hostsOwn = 'ONNXRUNTIME_NATIVE';

type Measured = Required<Pick<ModelConfig, 'intraOpThreads' | 'batchMax' | 'runMs'>>;
interface Curve extends Measured {
  /** Of one item in a run of `batchMax`. */
  itemMs: number;
}

/** `instances`: beside so many of itself was it measured. The host decides how many runs there are at a time. */
export type MeasuredRow = Pick<ReportRow, 'n' | 'batchSize' | 'intraOpThreads' | 'instances'> & { meanMs: number };

type Machine = Record<'permits' | 'cores' | 'deadlineMs', number>;

/**
 * Engine, threads, batch and run times of the row that the report of a benchmark chose. If it cannot be served, they are those of the best row
 * that can and that the report did not reject. A row with a batch cannot be where requests cannot share a run, nor one of another engine than
 * the settings ask for. Refuses (`benchmarkJobId`) where there is none. `isServed`: whether the host has an engine.
 */
export function measuredSettings(
  db: Queryable,
  {
    cores,
    inferenceEngine,
    inferencePermits: permits = permitsOf(cores, 1),
  }: Pick<Config, 'cores' | 'inferenceEngine' | 'inferencePermits'>,
  jobId: string,
  { id, number, signatureJson }: Pick<ModelVersion, 'id' | 'number' | 'signatureJson'>,
  { deadlineMs, engine: asked }: Pick<ModelConfig, 'deadlineMs' | 'engine'>,
  isServed: (engine: ModelEngine) => boolean,
): Measured & Pick<ModelConfig, 'engine'> {
  const report = findReportOf(db, jobId) ?? refuse('NOT_FOUND', 'benchmarkJobId', 'There is no benchmark of this id that has ended.');
  const { models, rows, choice } = JSON.parse(readContent(db, report)) as Report;
  const { inputs, outputs } = OnnxMeta.parse(signatureJson);
  const batched = batchSymbolOf([...inputs, ...outputs]) !== null;
  const own = rows.filter(({ model }) => models[model]?.versionId === id);
  const accepted = own.filter(({ n, verdict }) => isAccepted(choice, n) && (verdict === 'VALID' || verdict === 'UNSTABLE'));
  if (own.length > 0 && accepted.length === 0) {
    refuse(
      'INVALID',
      'benchmarkJobId',
      `The report of the benchmark rejects version ${number}: its results are wrong, or it is not accurate enough.`,
    );
  }
  const machine = { permits, cores, deadlineMs };
  const measuredOn = (engine: EngineName): Measured | null => {
    const usable = accepted.flatMap(({ latency, ...row }) =>
      row.engine === engine && latency && (batched || row.batchSize === 1) ? [{ ...row, meanMs: latency.meanNs / 1e6 }] : [],
    );
    return chosenOf(usable, choice.n, machine) ?? bestOf(usable, machine);
  };
  const chosen = accepted.find(({ n }) => n === choice.n);
  const { data: chosenEngine } = ModelEngine.unwrap().exclude(['AUTO', hostsOwn]).safeParse(chosen?.engine);
  const byChoice = asked === 'AUTO' && chosenEngine && isServed(chosenEngine) ? measuredOn(chosenEngine) : null;
  if (chosenEngine && byChoice) return { engine: chosenEngine, ...byChoice };
  const host = asked === 'AUTO' ? hostEngineOf(inferenceEngine) : asked;
  // Both engines of ONNX Runtime for the processor run the same library.
  const engine: EngineName = host !== hostsOwn || accepted.some((row) => row.engine === host) ? host : servingEngine;
  const measured =
    measuredOn(engine) ??
    refuse(
      'INVALID',
      'benchmarkJobId',
      `The benchmark has no valid row of version ${number} with a batch of 1 on ${engine} and at most ${threadsMaxOf(cores, permits)} threads: ` +
        `${permits} runs compute at a time on ${cores} cores. Measure it with \`intraOpThreads\` up to that, or set WHETSTONE_INFERENCE_PERMITS to fewer.`,
    );
  return { engine: asked, ...measured };
}

/** Whether a row has right results and is within the budget of accuracy. */
const isAccepted = ({ steps }: Report['choice'], n: number): boolean =>
  steps.every(({ rule, kept }) => (rule !== 'RIGHT' && rule !== 'ACCURACY') || kept.includes(n));

const hasCores = (threads: number, { permits, cores }: Machine): boolean => threads <= threadsMaxOf(cores, permits);

/** Null where the chosen row is not among these, or cannot be served: for lack of cores, or since a run takes longer than the deadline. */
export function chosenOf(rows: readonly MeasuredRow[], n: number | null, machine: Machine): Measured | null {
  const chosen = rows.find((row) => row.n === n);
  if (!chosen || !hasCores(chosen.intraOpThreads, machine) || (chosen.batchSize > 1 && chosen.meanMs > machine.deadlineMs)) return null;
  const { intraOpThreads, batchSize } = chosen;
  return { intraOpThreads, batchMax: batchSize, runMs: runMsOf(rows.filter((row) => settingOf(row) === settingOf(chosen))) };
}

const settingOf = ({ intraOpThreads, instances }: MeasuredRow): string => `${instances} × ${intraOpThreads}`;

const runMsOf = (rows: readonly MeasuredRow[]): Measured['runMs'] =>
  Object.fromEntries(rows.map(({ batchSize, meanMs }) => [batchSize, meanMs]));

/**
 * The fewest threads for which there are cores beside the other permits, and the smallest batch, that no other beats by 10 % for each item;
 * null where single items were not measured. No batch may take longer than the deadline.
 */
export function bestOf(rows: readonly MeasuredRow[], machine: Machine): Measured | null {
  const ordered = rows.toSorted((a, b) => a.intraOpThreads - b.intraOpThreads || a.instances - b.instances);
  const curves = [...Map.groupBy(ordered, settingOf).values()]
    .filter(([first]) => first !== undefined && hasCores(first.intraOpThreads, machine))
    .flatMap((of) => curveOf(of, machine.deadlineMs));
  const [first, ...others] = curves;
  if (!first) return null;
  const { itemMs: _, ...best } = others.reduce((a, b) => (b.itemMs <= worthwhile * a.itemMs ? b : a), first);
  return best;
}

/** Nothing where single items were not measured. */
function curveOf(rows: readonly MeasuredRow[], deadlineMs: number): Curve[] {
  const itemMs = ({ batchSize, meanMs }: MeasuredRow): number => meanMs / batchSize;
  const [single, ...batches] = rows.toSorted((a, b) => a.batchSize - b.batchSize);
  if (single?.batchSize !== 1) return [];
  const best = batches.reduce((a, b) => (b.meanMs <= deadlineMs && itemMs(b) <= worthwhile * itemMs(a) ? b : a), single);
  return [{ intraOpThreads: single.intraOpThreads, batchMax: best.batchSize, runMs: runMsOf(rows), itemMs: itemMs(best) }];
}
