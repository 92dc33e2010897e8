import { builder, idOf } from '../graphql/builder.ts';
import { numberKey, page, pageArgs } from '../graphql/connection.ts';
import { replaceIds } from '../jobs/references.ts';
import { opaqueId } from '../naming.ts';
import { ApiKeyType } from './apiKeys.schema.ts';
import { findApiKey } from './apiKeys.ts';
import { listAudit } from './audit.ts';
import { UserType } from './schema.ts';
import type { AuditRow, auditOutcomes } from './tables.ts';
import { findUser } from './users.ts';

const AuditOutcomeType = builder.enumType('AuditOutcome', {
  description: 'How an action ended.',
  values: { OK: { description: 'It was done.' }, DENIED: { description: 'It was refused.' } } satisfies Record<
    (typeof auditOutcomes)[number],
    unknown
  >,
});

const AuditEntryType = builder.objectRef<AuditRow>('AuditEntry').implement({
  description: 'One line of the audit log, which nobody can change.',
  fields: (t) => ({
    seq: t.expose('seq', { type: 'SafeInt', description: 'Number of the line, growing.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it happened; the last time, where `count` is more than 1.' }),
    count: t.exposeInt('count', {
      description:
        'How often: denied logins with the same name within an hour are one line, and so are those with many different unknown names.',
    }),
    actor: t.field({
      type: UserType,
      nullable: true,
      description: 'The user who did it; null before a login and on the command line.',
      resolve: (row, _a, { db }) => (row.actorId ? findUser(db, row.actorId) : null),
    }),
    apiKey: t.field({
      type: ApiKeyType,
      nullable: true,
      description: 'The API key with which a program of the actor did it.',
      resolve: (row, _a, { db }) => (row.apiKeyId ? findApiKey(db, row.apiKeyId) : null),
    }),
    action: t.exposeString('action', { description: 'The mutation, or `refreshReplay`.' }),
    targetType: t.exposeString('targetType', { nullable: true, description: 'Type of what was changed.' }),
    targetId: t.string({
      nullable: true,
      description: 'Id of what was changed.',
      resolve: (row) => row.targetType && row.targetId && opaqueId(row.targetType, row.targetId),
    }),
    requestId: t.exposeString('requestId', { nullable: true, description: 'The request, as in the log and in `extensions.requestId`.' }),
    outcome: t.expose('outcome', { type: AuditOutcomeType, description: 'How it ended.' }),
    detail: t.field({
      type: 'JSON',
      nullable: true,
      description: 'What was changed, with ids that `node` takes.',
      resolve: (row) => replaceIds(row.detailJson, opaqueId),
    }),
  }),
});

const AuditConnection = builder.connectionObject(
  { type: AuditEntryType, name: 'AuditConnection', description: 'A page of the audit log.' },
  { description: 'An entry in a page.' },
);

const AuditFilter = builder.inputType('AuditFilter', {
  description: 'Which entries.',
  fields: (t) => ({
    actorId: t.id({ description: 'Only what this user did.' }),
    action: t.string({ description: 'Only this action.' }),
    outcome: t.field({ type: AuditOutcomeType, description: 'Only this outcome.' }),
  }),
});

builder.queryField('auditLog', (t) =>
  t.field({
    type: AuditConnection,
    description: 'What was done by whom, newest first.',
    authScopes: { can: 'READ_AUDIT' },
    args: { ...pageArgs(), filter: t.arg({ type: AuditFilter, description: 'Which entries.' }) },
    resolve: (_root, { filter, ...args }, { db }) =>
      page(
        'auditLog',
        args,
        numberKey,
        (limit, after) => listAudit(db, { ...filter, actorId: filter?.actorId ? idOf('User', filter.actorId) : null }, limit, after),
        (row) => row.seq,
      ),
  }),
);
