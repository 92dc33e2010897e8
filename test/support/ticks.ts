import { Repeater, SlidingBuffer } from '@repeaterjs/repeater';
import { type GraphQLFieldConfig, GraphQLInt, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';

import type { Context } from '../../src/graphql/context.ts';

/** What the subscribers of `ticks` read from, in the order of their subscription. */
export const sources: { open: boolean; push(n: number): void }[] = [];

/** Events that a subscriber of `ticks` may be behind. */
const queueMax = 100;

const follow = (first: number | null | undefined) => {
  const source = { open: true, push: (_n: number) => {} };
  sources.push(source);
  return new Repeater<number, undefined>(async (push, stop) => {
    source.push = (n) => void push(n);
    if (first != null) push(first);
    await stop;
    source.open = false;
  }, new SlidingBuffer(queueMax));
};

// biome-ignore lint/correctness/useYield: it fails before its first event.
async function* failing(): AsyncGenerator<number> {
  throw new Error('a secret of the server');
}

/**
 * The product's schema and one more subscription, whose events the test makes: for what concerns every subscription alike. `first` is
 * the first event; with a negative one the stream fails. A test file mocks src/graphql/schema.ts with it.
 */
export function withTicks(schema: GraphQLSchema): GraphQLSchema {
  const ticks: GraphQLFieldConfig<number, Context> = {
    type: GraphQLString,
    args: { first: { type: GraphQLInt }, padding: { type: GraphQLInt, defaultValue: 0 } },
    subscribe: (_root, { first }) => (first < 0 ? failing() : follow(first)),
    resolve: (n, { padding }) => `${n}`.padEnd(padding, ' '),
  };
  const config = schema.toConfig();
  const Subscription = new GraphQLObjectType({ name: 'Subscription', fields: { ...config.subscription?.toConfig().fields, ticks } });
  return new GraphQLSchema({ ...config, subscription: Subscription, types: config.types.filter(({ name }) => name !== 'Subscription') });
}
