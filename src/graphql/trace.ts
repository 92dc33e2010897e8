import { type ExecutionArgs, getOperationAST } from 'graphql';
import { activeSpan, type Span, type Tracing } from '../tracing.ts';
import { fragmentsOf, rootFieldsOf } from './rootFields.ts';

/** Root fields in the name of a span: a document can have hundreds. */
const fieldsMax = 5;

/**
 * The span of a query or a mutation, named after the fields with which it begins: the client's name for it is an attribute, since clients
 * can make any number of names. The document is left out, which may hold a password.
 */
export function traceOperation(tracing: Tracing, { document, operationName }: ExecutionArgs): Span | null {
  const definition = getOperationAST(document, operationName);
  if (!definition || definition.operation === 'subscription') return null;
  const { operation, name } = definition;
  const fields = [...new Set(rootFieldsOf(definition, fragmentsOf(document)))];
  const shown = fields.slice(0, fieldsMax).join(', ');
  return tracing.start(`${operation} ${shown}${fields.length > fieldsMax ? ', …' : ''}`, {
    parent: activeSpan.getStore()?.context,
    attributes: { 'graphql.operation.type': operation, ...(name ? { 'graphql.operation.name': name.value.slice(0, 100) } : {}) },
  });
}
