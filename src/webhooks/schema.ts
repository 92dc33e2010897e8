import { findUser } from '../accounts/users.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { opaqueId } from '../naming.ts';
import type { DeliveryEvent, deliveryStates, Webhook, WebhookDelivery } from './tables.ts';
import {
  createWebhook,
  deleteWebhook,
  findDelivery,
  findWebhook,
  listDeliveries,
  listWebhooks,
  redeliverWebhook,
  rotateWebhookSecret,
  testWebhook,
  updateWebhook,
} from './webhooks.ts';

const EventType = builder.enumType('WebhookEvent', {
  description: 'What a webhook is sent for.',
  values: enumValues<DeliveryEvent>({
    JOB_ENDED: 'A job has SUCCEEDED, FAILED or was CANCELLED (`job.ended`). The jobs that a job makes count too.',
    GATE_FAILED: 'A job failed because the model that it made did not pass its gate, or missed its budget (`gate.failed`).',
    DEPLOYMENT_CHANGED: 'A revision of a deployment took the traffic or FAILED, or the deployment was removed (`deployment.changed`).',
    ALERT_CHANGED: 'An alert fires, or fires no more (`alert.changed`).',
    TEST: 'A test that `testWebhook` sends (`test`). A webhook cannot be made for it.',
  }),
});

const DeliveryStateType = builder.enumType('WebhookDeliveryState', {
  description: 'How far a delivery is.',
  values: enumValues<(typeof deliveryStates)[number]>({
    PENDING: 'It is sent at `nextAttemptAt`, while its webhook is enabled.',
    DELIVERED: 'The receiver answered with 200 to 299.',
    FAILED: 'It was tried for a day, a test once. `redeliverWebhook` tries again.',
  }),
});

const DeliveryType = builder.node(builder.objectRef<WebhookDelivery>('WebhookDelivery'), {
  description: 'One event for one webhook.',
  id: { resolve: (d) => d.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findDelivery(db, id),
  authScopes: { can: 'CONFIGURE' },
  fields: (t) => ({
    messageId: t.exposeString('id', { description: 'The header `webhook-id`, the same in each try.' }),
    event: t.expose('event', { type: EventType, description: 'What happened.' }),
    body: t.exposeString('body', { description: 'The body, byte for byte: canonical JSON.' }),
    state: t.expose('state', { type: DeliveryStateType, description: 'How far it is.' }),
    attempts: t.exposeInt('attempts', { description: 'How often it was tried.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it happened.' }),
    nextAttemptAt: t.expose('nextAt', { type: 'DateTime', nullable: true, description: 'When it is tried next; null when it is not.' }),
    endedAt: t.expose('endedAt', { type: 'DateTime', nullable: true, description: 'When it was delivered or given up.' }),
    httpStatus: t.exposeInt('httpStatus', { nullable: true, description: 'Status of the last answer; null where there was none.' }),
    response: t.exposeString('response', { nullable: true, description: 'The first 1,000 characters of the last answer.' }),
    problem: t.exposeString('problem', { nullable: true, description: 'Why the last try was not a delivery.' }),
  }),
});

const DeliveryConnection = builder.connectionObject(
  { type: DeliveryType, name: 'WebhookDeliveryConnection', description: 'A page of deliveries.' },
  { description: 'A delivery in a page.' },
);

const WebhookType = builder.node(builder.objectRef<Webhook>('Webhook'), {
  description: 'An address that gets an HTTP POST for each event that it is for.',
  id: { resolve: (w) => w.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findWebhook(db, id),
  authScopes: { can: 'CONFIGURE' },
  fields: (t) => ({
    url: t.exposeString('url', { description: 'Where it is sent to.' }),
    events: t.field({ type: [EventType], description: 'What it is sent for.', resolve: (w) => w.eventsJson }),
    enabled: t.exposeBoolean('enabled', { description: 'A disabled one gets nothing, and what happens meanwhile neither later.' }),
    rotationEndsAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Until when deliveries are signed with the secret before the rotation too; null when only the newest signs.',
      resolve: ({ previousSecretUntil }) => (previousSecretUntil !== null && previousSecretUntil > Date.now() ? previousSecretUntil : null),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    createdByName: t.string({
      nullable: true,
      description: 'Name of the user who made it.',
      resolve: (w, _a, { db }) => (w.createdById ? findUser(db, w.createdById)?.name : null),
    }),
    deliveries: t.field({
      type: DeliveryConnection,
      description: 'Its deliveries, newest first; the last 1,000 are kept.',
      args: { ...pageArgs(), state: t.arg({ type: DeliveryStateType, description: 'Only those in this state.' }) },
      resolve: ({ id }, { state, ...args }, { db }) =>
        page(
          `deliveries ${id} ${state}`,
          args,
          textKey,
          (limit, after) => listDeliveries(db, id, state ?? null, limit, after),
          (row) => row.id,
        ),
    }),
  }),
});

const WebhookConnection = builder.connectionObject(
  { type: WebhookType, name: 'WebhookConnection', description: 'A page of webhooks.' },
  { description: 'A webhook in a page.' },
);

builder.queryField('webhooks', (t) =>
  t.field({
    type: WebhookConnection,
    description: 'All webhooks, newest first.',
    authScopes: { can: 'CONFIGURE' },
    args: pageArgs(),
    resolve: (_root, args, { db }) =>
      page(
        'webhooks',
        args,
        textKey,
        (limit, after) => listWebhooks(db, limit, after),
        (row) => row.id,
      ),
  }),
);

const url = 'An http or https address. A private one must be allowed with WHETSTONE_WEBHOOK_ADDRESSES.';

builder.relayMutationField(
  'createWebhook',
  {
    inputFields: (t) => ({
      url: t.string({ required: true, description: url }),
      events: t.field({ type: [EventType], required: true, description: 'What it is sent for.' }),
    }),
  },
  {
    description: 'Makes a webhook, which is enabled; at most 20.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) => payload(() => createWebhook(context, context.actor, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ReturnType<typeof createWebhook>>) => ({
      webhook: t.field({ type: WebhookType, nullable: true, description: 'The new webhook.', resolve: (p) => p.result?.row }),
      secret: t.string({
        nullable: true,
        description: 'Shown this once: the receiver checks signatures with it (docs/webhooks.md).',
        resolve: (p) => p.result?.secret,
      }),
    }),
  },
);

builder.relayMutationField(
  'updateWebhook',
  {
    inputFields: (t) => ({
      webhookId: t.id({ required: true, description: 'Which one.' }),
      url: t.string({ description: `${url} Deliveries that are PENDING go there too.` }),
      events: t.field({ type: [EventType], description: 'What it is sent for from now on.' }),
      enabled: t.boolean({ description: 'False stops it at once; what is PENDING waits until it is enabled again.' }),
    }),
  },
  {
    description: 'Changes a webhook; what is left out stays as it is.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) => payload(() => updateWebhook(context, context.actor, idOf('Webhook', input.webhookId), input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Webhook>) => ({
      webhook: t.field({ type: WebhookType, nullable: true, description: 'The webhook as it is now.', resolve: (p) => p.result }),
    }),
  },
);

builder.relayMutationField(
  'rotateWebhookSecret',
  {
    inputFields: (t) => ({
      webhookId: t.id({ required: true, description: 'Which one.' }),
      overlapHours: t.int({
        required: true,
        defaultValue: 24,
        description:
          'For so long deliveries are signed with the old secret too, 0 to 168 hours. 0 voids it at once: for a secret that has leaked.',
      }),
    }),
  },
  {
    description: 'Gives a webhook a new secret. A secret before the old one is void at once.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) =>
      payload(() => rotateWebhookSecret(context, context.actor, idOf('Webhook', input.webhookId), input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ReturnType<typeof rotateWebhookSecret>>) => ({
      webhook: t.field({ type: WebhookType, nullable: true, description: 'The webhook as it is now.', resolve: (p) => p.result?.row }),
      secret: t.string({
        nullable: true,
        description: 'The new secret, shown this once.',
        resolve: (p) => p.result?.secret,
      }),
    }),
  },
);

builder.relayMutationField(
  'testWebhook',
  { inputFields: (t) => ({ webhookId: t.id({ required: true, description: 'Which one.' }) }) },
  {
    description: 'Sends a delivery with the event TEST at once and tries it once. `deliveries` of the webhook lists it with the answer.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) => payload(() => testWebhook(context, context.actor, idOf('Webhook', input.webhookId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<WebhookDelivery>) => ({
      delivery: t.field({ type: DeliveryType, nullable: true, description: 'The delivery, which is PENDING.', resolve: (p) => p.result }),
    }),
  },
);

builder.relayMutationField(
  'deleteWebhook',
  { inputFields: (t) => ({ webhookId: t.id({ required: true, description: 'Which one.' }) }) },
  {
    description: 'Deletes a webhook with its deliveries. What is PENDING is not sent any more.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) => payload(() => deleteWebhook(context, context.actor, idOf('Webhook', input.webhookId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<string>) => ({
      deletedWebhookId: t.id({
        nullable: true,
        description: 'The id of the webhook, which nothing has any more.',
        resolve: (p) => p.result && opaqueId('Webhook', p.result),
      }),
    }),
  },
);

builder.relayMutationField(
  'redeliverWebhook',
  { inputFields: (t) => ({ deliveryId: t.id({ required: true, description: 'The delivery.' }) }) },
  {
    description: 'Sends a delivery again with the same `webhook-id` and body, and tries for another day.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) =>
      payload(() => redeliverWebhook(context, context.actor, idOf('WebhookDelivery', input.deliveryId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<WebhookDelivery>) => ({
      delivery: t.field({ type: DeliveryType, nullable: true, description: 'The delivery as it is now.', resolve: (p) => p.result }),
    }),
  },
);
