import '../accounts/apiKeys.schema.ts';
import '../accounts/audit.schema.ts';
import '../accounts/schema.ts';
import '../alerts/schema.ts';
import '../backup/schema.ts';
import '../benchmark/schema.ts';
import '../datasets/bulk.schema.ts';
import '../datasets/create.schema.ts';
import '../datasets/items.schema.ts';
import '../datasets/schema.ts';
import '../deployments/inference.schema.ts';
import '../deployments/schema.ts';
import '../history/schema.ts';
import '../jobs/bulk.schema.ts';
import '../jobs/events.schema.ts';
import '../jobs/list.schema.ts';
import '../jobs/schema.ts';
import '../loadTest/schema.ts';
import '../system/schema.ts';
import '../tags/schema.ts';
import '../models/bulk.schema.ts';
import '../models/create.schema.ts';
import '../models/schema.ts';
import '../models/versions.schema.ts';
import '../packages/schema.ts';
import '../reports/comparison.schema.ts';
import '../reports/schema.ts';
import '../retention/schema.ts';
import '../training/compare.schema.ts';
import '../training/compression.schema.ts';
import '../training/jobs.schema.ts';
import '../training/preview.schema.ts';
import '../training/schema.ts';
import '../tuning/schema.ts';
import '../tuning/events.schema.ts';
import '../tuning/start.schema.ts';
import '../webhooks/schema.ts';
import {
  type GraphQLOutputType,
  type GraphQLSchema,
  getNullableType,
  isIntrospectionType,
  isLeafType,
  isListType,
  isObjectType,
} from 'graphql';
import { ApiError } from '../errors.ts';
import { inTurn } from '../turns.ts';
import { builder } from './builder.ts';
import type { Context } from './context.ts';

/** The whole API. Each domain's schema.ts adds its types and root fields to the builder when it is imported. */
export const schema = takingTurns(builder.toSchema());

/**
 * However many fields a document has, those of one request do not hold the event loop for longer than one of them takes. For a client that has
 * gone nothing more is read; what it wants to be done is done.
 */
function takingTurns(made: GraphQLSchema): GraphQLSchema {
  for (const type of Object.values(made.getTypeMap())) {
    if (!isObjectType(type) || isIntrospectionType(type)) continue;
    for (const field of Object.values(type.getFields())) {
      const { resolve } = field;
      if (!resolve) continue;
      const run = type === made.getMutationType() ? inTurn : whileAsked;
      const result = isObjectList(field.type)
        ? (context: Context, value: unknown) => (Array.isArray(value) ? itemsInTurns(context, value) : value)
        : null;
      field.resolve = (parent, args, context: Context, info) => {
        const value = run(context, () => resolve(parent, args, context, info));
        if (!result) return value;
        return value instanceof Promise ? value.then((list) => result(context, list)) : result(context, value);
      };
    }
  }
  return made;
}

function whileAsked<T>(context: Context, work: () => T): T | Promise<Awaited<T>> {
  return inTurn(context, () => {
    if (context.res?.destroyed) throw new ApiError('UNAVAILABLE', 'The client has gone.');
    return work();
  });
}

function isObjectList(type: GraphQLOutputType): boolean {
  const list = getNullableType(type);
  return isListType(list) && !isLeafType(getNullableType(list.ofType));
}

/** GraphQL begins all items of a list at once: each of a long one waits for its turn with all its fields. */
function* itemsInTurns<T>(request: Context, items: readonly T[]): Generator<T | Promise<T>> {
  for (const item of items) yield whileAsked(request, () => item) as T | Promise<T>;
}
