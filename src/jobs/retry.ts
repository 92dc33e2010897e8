import type { Actor } from '../accounts/audit.ts';
import { inTransaction } from '../db.ts';
import { InputError, refuse } from '../errors.ts';
import { announceJob, enqueue, findByIdempotencyKey } from './enqueue.ts';
import { requireJob } from './jobs.ts';
import type { JobKinds, JobServices } from './kinds.ts';
import type { Job } from './tables.ts';

/** A new job with the specification of one that FAILED or was CANCELLED. It continues from that one's checkpoint, if that is still kept. */
export function retryJob({ db, bus }: JobServices, kinds: JobKinds, actor: Actor, id: string, idempotencyKey?: string | null): Job {
  const retried = inTransaction(db, (tx) => {
    const row = requireJob(tx, id);
    const { kind, priority, parentId } = row;
    const wanted = { kind, priority, parentId, retryOfId: row.id, input: { retryOf: row.id, idempotencyKey } };
    const earlier = findByIdempotencyKey(tx, actor, wanted);
    if (earlier) return earlier;
    if (row.state !== 'FAILED' && row.state !== 'CANCELLED') {
      refuse('INVALID', 'jobId', `Only a job that failed or was cancelled can be tried again: this one is ${row.state}.`);
    }
    const coordinates = row.startedAt !== null && row.attemptNumber === 0;
    const made = enqueue(tx, actor, { ...wanted, spec: row.specJson, specVersion: row.specVersion, coordinates });
    try {
      kinds[row.kind].redo?.(tx, made);
    } catch (error) {
      // What it names is an argument of the job, not of this mutation.
      if (error instanceof InputError) refuse('INVALID', 'jobId', error.message);
      throw error;
    }
    return made;
  });
  announceJob(bus, retried);
  return retried;
}
