/** `graphql()` takes a document of the server and knows the types of its variables and of its answer, from schema.graphql. */
import { gql } from '@urql/core';
import type { initGraphQLTada } from 'gql.tada';
import type { introspection } from './schema.d.ts';

interface Setup {
  introspection: introspection;
  scalars: { DateTime: string; JSON: unknown; SafeInt: number };
}

/** Of gql.tada the types only: as a package of the product it would bring a compiler with it. */
export const graphql = gql as unknown as ReturnType<typeof initGraphQLTada<Setup>>;

export type { ResultOf, VariablesOf } from 'gql.tada';
