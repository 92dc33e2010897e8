import type { ExecutionArgs } from 'graphql';
import { activeSpan, type Span, type Tracing } from '../tracing.ts';
import { executedOperation } from './rootFields.ts';

/** Root fields in the name of a span: a document can have hundreds. */
const fieldsMax = 5;

/**
 * The span of a query or a mutation, named after the fields with which it begins: the client's name for it is an attribute, since clients
 * can make any number of names. The document is left out, which may hold a password.
 */
export function traceOperation(tracing: Tracing, args: ExecutionArgs): Span | null {
  const executed = executedOperation(args);
  if (!executed) return null;
  const { definition, fields } = executed;
  const { operation, name } = definition;
  const shown = fields.slice(0, fieldsMax).join(', ');
  return tracing.start(`${operation} ${shown}${fields.length > fieldsMax ? ', …' : ''}`, {
    parent: activeSpan.getStore()?.context,
    attributes: { 'graphql.operation.type': operation, ...(name ? { 'graphql.operation.name': name.value.slice(0, 100) } : {}) },
  });
}
