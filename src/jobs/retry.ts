import type { Actor } from '../accounts/audit.ts';
import { inTransaction } from '../db.ts';
import { refuse } from '../errors.ts';
import { requireJob } from './claim.ts';
import { enqueue, findByIdempotencyKey } from './enqueue.ts';
import type { JobKinds, JobServices } from './kinds.ts';
import type { Job } from './tables.ts';

/** A new job with the specification of one that FAILED or was CANCELLED. */
export function retryJob({ db, bus }: JobServices, kinds: JobKinds, actor: Actor, id: string, idempotencyKey?: string | null): Job {
  const retried = inTransaction(db, (tx) => {
    const earlier = findByIdempotencyKey(tx, actor, idempotencyKey);
    if (earlier && earlier.retryOfId !== id) refuse('INVALID', 'idempotencyKey', 'This key was used for something else. Take a new one.');
    if (earlier) return earlier;
    const row = requireJob(tx, id);
    if (row.state !== 'FAILED' && row.state !== 'CANCELLED') {
      refuse('INVALID', 'jobId', `Only a job that failed or was cancelled can be tried again: this one is ${row.state}.`);
    }
    const made = enqueue(tx, actor, { kind: row.kind, spec: row.specJson, priority: row.priority, retryOfId: row.id, idempotencyKey });
    kinds[row.kind].redo?.(tx, made);
    return made;
  });
  bus.publish('queueChanged', '', null);
  bus.publish('jobChanged', '', { jobId: retried.id });
  return retried;
}
