/** Mutations that do the same to several things: each by itself, with an answer for each. */
import { setImmediate } from 'node:timers/promises';
import type { Permission } from '../accounts/tables.ts';
import { passingError } from '../db.ts';
import { ApiError, InputError, refuse, type UserError } from '../errors.ts';
import { builder, idOf, type PayloadFields, PayloadType, payload, UserErrorType } from './builder.ts';
import type { Context } from './context.ts';

const idsMax = 100;

interface BulkResult {
  id: string;
  userErrors: UserError[];
}

const BulkResultType = builder.objectRef<BulkResult>('BulkResult').implement({
  description: 'What became of one of several things.',
  fields: (t) => ({
    id: t.exposeID('id', { description: 'Its id, as it was sent.' }),
    done: t.boolean({ description: 'Whether it was done.', resolve: ({ userErrors }) => userErrors.length === 0 }),
    userErrors: t.field({
      type: [UserErrorType],
      description: 'Why not; empty when it was done.',
      extensions: { size: 2 },
      resolve: ({ userErrors }) => userErrors,
    }),
  }),
});

interface Bulk {
  /** The type of the ids. */
  type: string;
  can: Permission;
  description: string;
  /** The mutation for one of them. */
  run(context: Context, id: string): unknown;
}

/** Adds a mutation that does `run` to each id. What one of them throws is its result: the others are done, and the caller learns of all. */
export function bulkMutation(name: string, { type, can, description, run }: Bulk): void {
  builder.relayMutationField(
    name,
    {
      inputFields: (t) => ({ ids: t.idList({ required: true, description: `1 to ${idsMax} ids; one that is there twice counts once.` }) }),
    },
    {
      description: `${description} Each by itself: \`results\` tells what became of it.`,
      authScopes: { can },
      resolve: (_root, { input }, context) =>
        payload(async () => {
          const ids = [...new Set(input.ids)];
          if (ids.length === 0 || ids.length > idsMax) refuse('LIMIT', 'ids', `Name 1 to ${idsMax} ids; there are ${ids.length}.`);
          const errors = new Map<string, UserError[]>();
          for (const id of newestFirst(ids)) {
            errors.set(id, await errorsOf(context, () => run(context, idOf(type, id))));
            // A large one must not keep everybody waiting together with the next.
            await setImmediate();
          }
          return ids.map((id) => ({ id, userErrors: errors.get(id) ?? [] }));
        }),
    },
    {
      interfaces: [PayloadType],
      outputFields: (t: PayloadFields<BulkResult[]>) => ({
        results: t.field({
          type: [BulkResultType],
          nullable: true,
          description: 'One for each id, in their order; null where nothing was tried.',
          extensions: { size: idsMax / 10 },
          resolve: (p) => p.result,
        }),
      }),
    },
  );
}

/** A job before the one that made it, which would take it along. Ids are UUIDv7. */
const newestFirst = (ids: readonly string[]): string[] =>
  ids
    .map((id) => ({ id, key: Buffer.from(id, 'base64url').toString() }))
    .sort((a, b) => (a.key < b.key ? 1 : -1))
    .map(({ id }) => id);

async function errorsOf({ log }: Context, run: () => unknown): Promise<UserError[]> {
  try {
    await run();
    return [];
  } catch (error) {
    if (error instanceof InputError) return error.userErrors;
    const known = error instanceof ApiError ? error : passingError(error);
    if (known) return [{ code: known.code, message: known.message, field: null }];
    log.error({ err: error }, 'one of several could not be done');
    return [{ code: 'INTERNAL', message: 'Something went wrong inside Whetstone. The log of the server tells more.', field: null }];
  }
}
