import type { Queryable } from '../db.ts';
import { type AuditRow, audit } from './tables.ts';

/** Who asks, as far as the audit log is concerned: `actorId` is null before login and on the command line. */
export interface Actor {
  actorId: string | null;
  requestId: string | null;
}

interface Entry {
  action: string;
  outcome?: AuditRow['outcome'];
  target?: { type: string; id: string };
  detail?: Record<string, unknown>;
}

/** Appends one row, in the transaction of the change that it tells of. */
export function writeAudit(tx: Queryable, actor: Actor, { action, outcome = 'OK', target, detail }: Entry): void {
  tx.insert(audit)
    .values({ ...actor, at: Date.now(), action, outcome, targetType: target?.type, targetId: target?.id, detailJson: detail })
    .run();
}
