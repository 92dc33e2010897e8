/**
 * A process of its own for one configuration of a benchmark, so that its memory is that of one model and a crash of the engine ends one row.
 * It does what `run.ts` asks, one step after the other, tells its progress, and answers each step with its result.
 */
import type { Phase } from '../jobs/protocol.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import type { PlannedCell } from './cells.ts';
import { type Prepared, prepare } from './inputs.ts';
import { type BlockAsked, type MeasureProgress, openCell, type WarmCell } from './measure.ts';

/** `prepare` makes what `open` gets, in another process: the reference must not take memory where the model is measured. */
export type CellStep =
  | { do: 'prepare'; spec: BenchmarkSpec; cell: PlannedCell }
  | { do: 'open'; spec: BenchmarkSpec; cell: PlannedCell; prepared: Prepared }
  | { do: 'block'; asked: BlockAsked }
  | { do: 'close' };

export type CellMessage =
  | { phase: Phase; total: number | null }
  | { advance: number; metrics: Record<string, number> | undefined }
  | { result: unknown };

/** Messages take time from the measurement. */
const tellMs = 250;

const tell = (told: CellMessage): void => void process.send?.(told);

function createProgress(): MeasureProgress {
  let done = 0;
  let toldAt = 0;
  let latest: Record<string, number> | undefined;
  return {
    phase(phase, total) {
      done = 0;
      tell({ phase, total });
    },
    advance(items, metrics) {
      done += items;
      latest = metrics ?? latest;
      const now = performance.now();
      if (!metrics && now - toldAt < tellMs) return;
      toldAt = now;
      tell({ advance: done, metrics: latest });
      done = 0;
    },
  };
}

let warm: WarmCell | undefined;

async function take(step: CellStep): Promise<unknown> {
  if (step.do === 'prepare')
    return prepare(step.spec.models[step.cell.model] as BenchmarkSpec['models'][number], step.cell.batchSize, step.spec);
  if (step.do === 'open') {
    const opened = await openCell(step.spec, step.cell, step.prepared, createProgress());
    warm = opened.warm ?? undefined;
    return opened.telemetry;
  }
  if (!warm) throw new Error('No model is open.');
  return step.do === 'block' ? warm.block(step.asked) : warm.close();
}

// The end, when `run.ts` needs nothing more; and no orphan when that one is gone.
process.on('disconnect', () => process.exit());
process.on('message', async (step: CellStep) => tell({ result: await take(step) }));
