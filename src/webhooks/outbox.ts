import { randomUUIDv7 } from 'node:crypto';
import { asc, eq, sql } from 'drizzle-orm';
import { canonicalJson } from '../canonical.ts';
import { prepared, type Queryable, rowInsert } from '../db.ts';
import { type WebhookEvent, webhook, webhookDelivery } from './tables.ts';

/** Of a webhook: a further one pushes out the oldest, even one that is not delivered yet. */
const deliveriesMax = 1000;
/** How long a delivery is tried. */
export const triedMs = 86_400_000;

/** `type` of a body. */
const bodyTypes: Record<WebhookEvent, string> = {
  JOB_ENDED: 'job.ended',
  GATE_FAILED: 'gate.failed',
  DEPLOYMENT_CHANGED: 'deployment.changed',
  ALERT_CHANGED: 'alert.changed',
};

const enabledQuery = prepared((db) => db.select().from(webhook).where(eq(webhook.enabled, true)).orderBy(asc(webhook.id)).prepare());

export const enabledWebhooks = (db: Queryable) => enabledQuery(db).all();

const insertDelivery = rowInsert(webhookDelivery);

/**
 * Writes a delivery of an event for each webhook that wants it, in the transaction of what happened: no event is lost, and none is sent of
 * what was rolled back. `data`: ids as the API gives them out, and what happened; no secret.
 */
export function queueDeliveries(tx: Queryable, event: WebhookEvent, data: Record<string, unknown>): void {
  const wanting = enabledWebhooks(tx).filter(({ eventsJson }) => eventsJson.includes(event));
  if (wanting.length === 0) return;
  const now = Date.now();
  const body = canonicalJson({ type: bodyTypes[event], timestamp: new Date(now).toISOString(), data });
  for (const { id: webhookId } of wanting) {
    const surplus = sql`${webhookDelivery.id} IN (SELECT id FROM ${webhookDelivery} WHERE ${webhookDelivery.webhookId} = ${webhookId}
      ORDER BY id DESC LIMIT -1 OFFSET ${deliveriesMax - 1})`;
    tx.delete(webhookDelivery).where(surplus).run();
    insertDelivery(tx, {
      id: randomUUIDv7(),
      webhookId,
      event,
      body,
      state: 'PENDING',
      attempts: 0,
      nextAt: now,
      triedUntil: now + triedMs,
      httpStatus: null,
      response: null,
      problem: null,
      createdAt: now,
      endedAt: null,
    });
  }
}
