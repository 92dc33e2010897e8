import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';

export const webhookEvents = ['JOB_ENDED', 'GATE_FAILED', 'DEPLOYMENT_CHANGED', 'ALERT_CHANGED'] as const;
export type WebhookEvent = (typeof webhookEvents)[number];

/** TEST is for one webhook, whatever it is for. */
const deliveryEvents = [...webhookEvents, 'TEST'] as const;
export type DeliveryEvent = (typeof deliveryEvents)[number];

export const deliveryStates = ['PENDING', 'DELIVERED', 'FAILED'] as const;

/** An address that gets a POST for each event of its list. */
export const webhook = sqliteTable('webhook', {
  id: text().primaryKey(),
  url: text().notNull(),
  eventsJson: text({ mode: 'json' }).$type<WebhookEvent[]>().notNull(),
  /** As it was shown once. Signing needs the secret itself, so that a hash would not do. */
  secret: text().notNull(),
  /** The one before; deliveries are signed with both until this moment. */
  previousSecret: text(),
  previousSecretUntil: integer(),
  enabled: integer({ mode: 'boolean' }).notNull(),
  createdById: text().references(() => user.id),
  createdAt: integer().notNull(),
});

/** An event for a webhook: written in the transaction of what happened, sent later. */
export const webhookDelivery = sqliteTable(
  'webhook_delivery',
  {
    /** A UUIDv7, which grows with the time; also the `webhook-id` of each try. */
    id: text().primaryKey(),
    webhookId: text()
      .notNull()
      .references(() => webhook.id, { onDelete: 'cascade' }),
    event: text({ enum: deliveryEvents }).notNull(),
    body: text().notNull(),
    state: text({ enum: deliveryStates }).notNull(),
    attempts: integer().notNull().default(0),
    /** Of the next try; null when it is not PENDING. */
    nextAt: integer(),
    /** A try that fails after this is the last. */
    triedUntil: integer().notNull(),
    /** Of the last try: the status of the answer, the beginning of its body, and why it was not a delivery. */
    httpStatus: integer(),
    response: text(),
    problem: text(),
    createdAt: integer().notNull(),
    endedAt: integer(),
  },
  (t) => [index('webhook_delivery_webhook').on(t.webhookId, t.id), index('webhook_delivery_due').on(t.webhookId, t.nextAt)],
);

export type Webhook = typeof webhook.$inferSelect;
export type WebhookDelivery = typeof webhookDelivery.$inferSelect;
