import { randomBytes, randomUUIDv7 } from 'node:crypto';
import { isIP } from 'node:net';
import { and, count, desc, eq, lt } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { opaqueId } from '../naming.ts';
import { addressProblem } from './addresses.ts';
import { queueDelivery, triedMs } from './outbox.ts';
import { type Webhook, type WebhookDelivery, webhook, webhookDelivery, webhookEvents } from './tables.ts';

interface WebhookServices {
  config: Pick<Config, 'webhookAddresses'>;
  db: Db;
}

const webhooksMax = 20;

const Url = z
  .url({ protocol: /^https?$/, error: 'A webhook has an address such as https://lab.example/whetstone.' })
  .max(2000, 'The URL of a webhook has at most 2000 characters.')
  .transform((text) => new URL(text))
  .refine(({ username, password }) => username === '' && password === '', 'Leave name and password out of the URL: check the signature.');
const Events = z
  .array(z.enum(webhookEvents, { error: 'TEST is sent by `testWebhook` only: leave it out.' }))
  .min(1, 'A webhook is for at least one event.')
  .transform((events) => webhookEvents.filter((name) => events.includes(name)));

const CreateWebhookInput = z.object({ url: Url, events: Events });
const UpdateWebhookInput = z.object({ url: Url.nullish(), events: Events.nullish(), enabled: z.boolean().nullish() });

const RotateWebhookSecretInput = z.object({ overlapHours: z.int().min(0).max(168) });

const newSecret = (): string => `whsec_${randomBytes(32).toString('base64')}`;

/** Refuses an address at once that would be refused each time. What a name resolves to is checked when it is connected to. */
function requirePublic({ config }: WebhookServices, { hostname }: URL): void {
  const host = hostname.replace(/^\[(.*)\]$/, '$1');
  const problem = isIP(host) === 0 ? null : addressProblem(config.webhookAddresses)(host);
  if (problem !== null) refuse('INVALID', 'url', problem);
}

export function findWebhook(db: Queryable, id: string): Webhook | undefined {
  return db.select().from(webhook).where(eq(webhook.id, id)).get();
}

const requireWebhook = (db: Queryable, id: string): Webhook => findWebhook(db, id) ?? notFound('webhook');

/** Newest first, behind the one with the id `after`. Ids are UUIDv7. */
export function listWebhooks(db: Queryable, limit: number, after: string | null): Webhook[] {
  return db
    .select()
    .from(webhook)
    .where(after === null ? undefined : lt(webhook.id, after))
    .orderBy(desc(webhook.id))
    .limit(limit)
    .all();
}

export function findDelivery(db: Queryable, id: string): WebhookDelivery | undefined {
  return db.select().from(webhookDelivery).where(eq(webhookDelivery.id, id)).get();
}

/** Newest first. */
export function listDeliveries(
  db: Queryable,
  webhookId: string,
  state: WebhookDelivery['state'] | null,
  limit: number,
  after: string | null,
): WebhookDelivery[] {
  return db
    .select()
    .from(webhookDelivery)
    .where(
      and(
        eq(webhookDelivery.webhookId, webhookId),
        state === null ? undefined : eq(webhookDelivery.state, state),
        after === null ? undefined : lt(webhookDelivery.id, after),
      ),
    )
    .orderBy(desc(webhookDelivery.id))
    .limit(limit)
    .all();
}

/** What the audit log says of a webhook: paths and queries of addresses may hold a secret. */
const auditDetail = ({ url, eventsJson, enabled }: Webhook) => ({ host: new URL(url).host, events: eventsJson, enabled });

/** The secret is shown this once. */
export function createWebhook(services: WebhookServices, actor: Actor, raw: unknown): { row: Webhook; secret: string } {
  const { url, events } = parseInput(CreateWebhookInput, raw);
  requirePublic(services, url);
  const secret = newSecret();
  const row = inTransaction(services.db, (tx) => {
    const { n } = tx.select({ n: count() }).from(webhook).get() ?? { n: 0 };
    if (n >= webhooksMax) refuse('LIMIT', null, `There are ${webhooksMax} webhooks: delete one first.`);
    const values = { id: randomUUIDv7(), url: url.href, eventsJson: events, secret, enabled: true, createdAt: Date.now() };
    const row = tx
      .insert(webhook)
      .values({ ...values, createdById: actor.actorId })
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'createWebhook', target: { type: 'Webhook', id: row.id }, detail: auditDetail(row) });
    return row;
  });
  return { row, secret };
}

/** What is left out stays as it is. */
export function updateWebhook(services: WebhookServices, actor: Actor, id: string, raw: unknown): Webhook {
  const { url, events, enabled } = parseInput(UpdateWebhookInput, raw);
  if (url) requirePublic(services, url);
  // Urgent: to disable one must be possible on a full disk.
  return inUrgentTransaction(services.db, (tx) => {
    const before = requireWebhook(tx, id);
    const row = tx
      .update(webhook)
      .set({ url: url?.href ?? before.url, eventsJson: events ?? before.eventsJson, enabled: enabled ?? before.enabled })
      .where(eq(webhook.id, id))
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'updateWebhook', target: { type: 'Webhook', id }, detail: auditDetail(row) });
    return row;
  });
}

/** The new secret is shown this once. With an overlap, receivers may check with either for so long; without one the old one is void at once. */
export function rotateWebhookSecret({ db }: WebhookServices, actor: Actor, id: string, raw: unknown): { row: Webhook; secret: string } {
  const { overlapHours } = parseInput(RotateWebhookSecretInput, raw);
  const secret = newSecret();
  // Urgent: to void a secret that has leaked must be possible on a full disk.
  const row = inUrgentTransaction(db, (tx) => {
    const before = requireWebhook(tx, id);
    const previous =
      overlapHours === 0
        ? { previousSecret: null, previousSecretUntil: null }
        : { previousSecret: before.secret, previousSecretUntil: Date.now() + overlapHours * 3_600_000 };
    writeAudit(tx, actor, { action: 'rotateWebhookSecret', target: { type: 'Webhook', id }, detail: { overlapHours } });
    return tx
      .update(webhook)
      .set({ secret, ...previous })
      .where(eq(webhook.id, id))
      .returning()
      .get();
  });
  return { row, secret };
}

/** Sends a test delivery. It is tried once, so that the answer shows soon. */
export function testWebhook({ db }: WebhookServices, actor: Actor, id: string): WebhookDelivery {
  return inTransaction(db, (tx) => {
    if (!requireWebhook(tx, id).enabled) refuse('INVALID', 'webhookId', 'The webhook is disabled: enable it first.');
    writeAudit(tx, actor, { action: 'testWebhook', target: { type: 'Webhook', id } });
    return queueDelivery(tx, id, 'TEST', { webhookId: opaqueId('Webhook', id) }, 0);
  });
}

/** Deletes it with its deliveries, sent or not. */
export function deleteWebhook({ db }: WebhookServices, actor: Actor, id: string): string {
  return inUrgentTransaction(db, (tx) => {
    const row = requireWebhook(tx, id);
    tx.delete(webhook).where(eq(webhook.id, id)).run();
    writeAudit(tx, actor, { action: 'deleteWebhook', target: { type: 'Webhook', id }, detail: auditDetail(row) });
    return id;
  });
}

/** Sends a delivery again, with its id and its body, and tries for another day. */
export function redeliverWebhook({ db }: WebhookServices, actor: Actor, id: string): WebhookDelivery {
  return inTransaction(db, (tx) => {
    const { webhookId } = findDelivery(tx, id) ?? notFound('delivery');
    if (!requireWebhook(tx, webhookId).enabled) refuse('INVALID', 'deliveryId', 'The webhook is disabled: enable it first.');
    writeAudit(tx, actor, { action: 'redeliverWebhook', target: { type: 'Webhook', id: webhookId } });
    const now = Date.now();
    return tx
      .update(webhookDelivery)
      .set({ state: 'PENDING', attempts: 0, nextAt: now, triedUntil: now + triedMs, endedAt: null })
      .where(eq(webhookDelivery.id, id))
      .returning()
      .get();
  });
}
