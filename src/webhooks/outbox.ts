import { randomUUIDv7 } from 'node:crypto';
import { asc, eq, sql } from 'drizzle-orm';
import { canonicalJson } from '../canonical.ts';
import { prepared, type Queryable, rowInsert } from '../db.ts';
import { type DeliveryEvent, type WebhookDelivery, type WebhookEvent, webhook, webhookDelivery } from './tables.ts';

/** Of a webhook: a further one pushes out the oldest, even one that is not delivered yet. */
const deliveriesMax = 1000;
/** How long a delivery is tried. */
export const triedMs = 86_400_000;

/** `type` of a body. */
const bodyTypes: Record<DeliveryEvent, string> = {
  JOB_ENDED: 'job.ended',
  GATE_FAILED: 'gate.failed',
  DEPLOYMENT_CHANGED: 'deployment.changed',
  ALERT_CHANGED: 'alert.changed',
  TEST: 'test',
};

const enabledQuery = prepared((db) => db.select().from(webhook).where(eq(webhook.enabled, true)).orderBy(asc(webhook.id)).prepare());

export const enabledWebhooks = (db: Queryable) => enabledQuery(db).all();

const insertDelivery = rowInsert(webhookDelivery);

/**
 * Writes a delivery of an event for each webhook that wants it, in the transaction of what happened: no event is lost, and none is sent of
 * what was rolled back. `data`: ids as the API gives them out, and what happened; no secret.
 */
export function queueDeliveries(tx: Queryable, event: WebhookEvent, data: Record<string, unknown>): void {
  for (const { id, eventsJson } of enabledWebhooks(tx)) if (eventsJson.includes(event)) queueDelivery(tx, id, event, data, triedMs);
}

/** Writes one that is tried for so long; with 0 ms it is tried once. */
export function queueDelivery(
  tx: Queryable,
  webhookId: string,
  event: DeliveryEvent,
  data: Record<string, unknown>,
  forMs: number,
): WebhookDelivery {
  const surplus = sql`${webhookDelivery.id} IN (SELECT id FROM ${webhookDelivery} WHERE ${webhookDelivery.webhookId} = ${webhookId}
    ORDER BY id DESC LIMIT -1 OFFSET ${deliveriesMax - 1})`;
  tx.delete(webhookDelivery).where(surplus).run();
  const now = Date.now();
  const row: WebhookDelivery = {
    id: randomUUIDv7(),
    webhookId,
    event,
    body: canonicalJson({ type: bodyTypes[event], timestamp: new Date(now).toISOString(), data }),
    state: 'PENDING',
    attempts: 0,
    nextAt: now,
    triedUntil: now + forMs,
    httpStatus: null,
    response: null,
    problem: null,
    createdAt: now,
    endedAt: null,
  };
  insertDelivery(tx, row);
  return row;
}
