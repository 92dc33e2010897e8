import { type ExecutionArgs, GraphQLError, getNamedType, getOperationAST, isObjectType, TypeInfo, visit, visitWithTypeInfo } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { allows, forbidden } from '../accounts/viewer.ts';
import { ApiError } from '../errors.ts';
import type { Context } from './context.ts';
import { schema } from './schema.ts';

/**
 * Refuses a mutation before it begins where its caller may not read what the document asks of its result: an API key without READ. Otherwise it
 * would be carried out and answered with an error, and its client would repeat it.
 */
export const useReadableResults: Plugin<Context> = {
  onExecute({ args, setResultAndStopExecution }) {
    const { document, operationName, contextValue } = args as ExecutionArgs;
    const { viewer } = contextValue as Context;
    if (!viewer || allows(viewer, 'READ') || getOperationAST(document, operationName)?.operation !== 'mutation') return;
    const info = new TypeInfo(schema);
    let asked: string | undefined;
    const enter = () => {
      const type = getNamedType(info.getType());
      if (isObjectType(type) && needsRead(type.extensions)) asked ??= info.getFieldDef()?.name;
    };
    visit(document, visitWithTypeInfo(info, { Field: enter }));
    if (asked === undefined) return;
    const todo = `Nothing was done. Leave out \`${asked}\` and ask for \`userErrors\` alone, or use a key with the scope.`;
    const originalError = new ApiError('FORBIDDEN', `${forbidden(viewer, 'READ').message} ${todo}`);
    setResultAndStopExecution({ errors: [new GraphQLError(originalError.message, { originalError })] });
  },
};

/** Of a type: the options that Pothos has of it. */
const needsRead = (extensions: { pothosOptions?: { authScopes?: unknown } }): boolean =>
  (extensions.pothosOptions?.authScopes as { can?: string } | undefined)?.can === 'READ';
