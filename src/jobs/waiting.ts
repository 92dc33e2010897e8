import { hasRoom } from '../storage/disk.ts';
import { lastEvent } from './events.ts';
import type { JobServices } from './kinds.ts';
import { diskIsFull } from './record.ts';
import { type Failure, isFinal } from './states.ts';
import type { Job } from './tables.ts';

const isHeld: Failure = { code: 'PAUSED', message: 'Its study is paused: continue it with `resumeStudy`.' };

/** Why a job waits that does not only wait for its turn: the disk is full, or what its last attempt met. Null where it does not. */
export function waitReason({ config, db }: Pick<JobServices, 'config' | 'db'>, { id, state, held }: Job): Failure | null {
  if (isFinal(state)) return null;
  if (held) return isHeld;
  if (!hasRoom({ config })) return diskIsFull;
  if (state !== 'QUEUED') return null;
  return (lastEvent(db, id, 'STATE')?.payloadJson.failure as Failure | undefined) ?? null;
}
