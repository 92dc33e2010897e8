/** The times of GraphQL's operations, by the fields with which they begin: the schema's own, so that clients cannot make labels up. */
import type { ExecutionArgs } from 'graphql';
import { Histogram, type Registry } from 'prom-client';
import { executedOperation } from './rootFields.ts';

export interface GraphqlMetrics {
  /** Takes an executed query or mutation. */
  executed(args: ExecutionArgs, seconds: number): void;
}

/** Upper bounds in seconds. */
export const requestBuckets = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

export function createGraphqlMetrics(registry: Registry): GraphqlMetrics {
  const histogram = new Histogram({
    name: 'whetstone_graphql_operation_duration_seconds',
    help: 'Time of executing an operation, under each of the fields with which it begins.',
    labelNames: ['operation', 'field'],
    buckets: requestBuckets,
    registers: [registry],
  });
  return {
    executed(args, seconds) {
      const executed = executedOperation(args);
      if (!executed) return;
      const { operation } = executed.definition;
      const known = args.schema.getRootType(operation)?.getFields() ?? {};
      for (const field of executed.fields) {
        if (Object.hasOwn(known, field)) histogram.observe({ operation, field }, seconds);
      }
    },
  };
}
