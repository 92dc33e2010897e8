import { hasRoom } from '../storage/disk.ts';
import { lastEvent } from './events.ts';
import type { JobServices } from './kinds.ts';
import { diskIsFull } from './record.ts';
import { type Failure, isFinal } from './states.ts';
import type { Job } from './tables.ts';

const isHeld: Failure = { code: 'PAUSED', message: 'Its study is paused: continue it with `resumeStudy`.' };

const tooFewSlots = (needed: number, slots: number): Failure => ({
  code: 'TOO_FEW_SLOTS',
  message: `It needs ${needed} slots, and the server has ${slots}: start the server with WHETSTONE_SLOTS=${needed}, or cancel the job.`,
});

/** Why a job waits that does not only wait for its turn: the disk is full, the server has too few slots, or what its last attempt met. Null where it does not. */
export function waitReason({ config, db }: Pick<JobServices, 'config' | 'db'>, { id, state, held, slotsNeeded }: Job): Failure | null {
  if (isFinal(state)) return null;
  if (held) return isHeld;
  if (!hasRoom({ config })) return diskIsFull;
  if (state !== 'QUEUED') return null;
  if (slotsNeeded > config.slots) return tooFewSlots(slotsNeeded, config.slots);
  return (lastEvent(db, id, 'STATE')?.payloadJson.failure as Failure | undefined) ?? null;
}
