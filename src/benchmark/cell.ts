/**
 * A process of its own for one step of a benchmark, so that its memory is that of one model and a crash of the engine ends one row.
 * It gets one `CellTask` from `run.ts`, tells its progress and ends with its result.
 */
import type { Phase } from '../jobs/protocol.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import type { PlannedCell } from './cells.ts';
import { type Prepared, prepare } from './inputs.ts';
import { type MeasureProgress, measureCell } from './measure.ts';

/** `prepare` makes what `measure` gets: the reference must not take memory where the model is measured. */
export type CellTask = { spec: BenchmarkSpec; cell: PlannedCell } & ({ do: 'prepare' } | { do: 'measure'; prepared: Prepared });

export type CellMessage =
  | { phase: Phase; total: number | null }
  | { advance: number; metrics: Record<string, number> | undefined }
  | { result: Awaited<ReturnType<typeof prepare>> | Awaited<ReturnType<typeof measureCell>> };

/** Messages take time from the measurement. */
const tellMs = 250;

const tell = (told: CellMessage): void => void process.send?.(told);

function createProgress(): MeasureProgress {
  let done = 0;
  let toldAt = 0;
  return {
    phase(phase, total) {
      done = 0;
      tell({ phase, total });
    },
    advance(items, metrics) {
      done += items;
      const now = performance.now();
      if (now - toldAt < tellMs) return;
      toldAt = now;
      tell({ advance: done, metrics });
      done = 0;
    },
  };
}

// The end, when `run.ts` has the result; and no orphan when that one is gone.
process.on('disconnect', () => process.exit());
process.once('message', async (task: CellTask) => {
  const { spec, cell } = task;
  const result =
    task.do === 'prepare'
      ? await prepare(spec.models[cell.model] as BenchmarkSpec['models'][number], cell.batchSize, spec)
      : await measureCell(spec, cell, task.prepared, createProgress());
  tell({ result });
});
