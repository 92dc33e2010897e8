/** `graphql()` takes a document of the server and knows the types of its variables and of its answer, from schema.graphql. */
import { initGraphQLTada } from 'gql.tada';
import type { introspection } from './schema.d.ts';

export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: { DateTime: string; JSON: unknown; SafeInt: number };
}>();

export type { ResultOf, VariablesOf } from 'gql.tada';
