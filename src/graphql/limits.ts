import {
  type ArgumentNode,
  type DocumentNode,
  type FragmentDefinitionNode,
  GraphQLError,
  type GraphQLField,
  type GraphQLNamedType,
  type GraphQLSchema,
  getNamedType,
  isInterfaceType,
  isObjectType,
  Kind,
  type ListValueNode,
  type OperationDefinitionNode,
  parse,
  type SelectionSetNode,
  type Source,
  valueFromASTUntyped,
} from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { ApiError } from '../errors.ts';

/** What a document may be. The whole introspection query has 15 levels, 240 selections and no alias. */
export const limits = {
  /** Characters of a document. */
  characters: 65_536,
  tokens: 2_000,
  depth: 20,
  aliases: 50,
  /** Fields and fragments, each fragment counted where it is used: validation compares them pair by pair. */
  selections: 300,
  /** Objects that the lists of a document can return, by their `first` and `ids`, levels multiplied. */
  nodes: 20_000,
} as const;

/** These hand out tokens: one of them in a document, or aliases would make a guessing machine of it. */
const alone = new Set(['login', 'refresh', 'bootstrap', 'changePassword']);

interface Size {
  depth: number;
  aliases: number;
  selections: number;
  nodes: number;
}

const nothing: Size = { depth: 0, aliases: 0, selections: 0, nodes: 0 };

/**
 * Refuses a document beyond the limits before validation, whose cost grows with the square of the selections (30 × 30 overlapping
 * inline fragments: 158 CPU-ms). One pass for each operation, and for each fragment, used or not; a fragment is measured once in it.
 */
export function checkDocument(schema: GraphQLSchema, document: DocumentNode, variables: Record<string, unknown> = {}): void {
  const fragments = new Map(document.definitions.flatMap((d) => (d.kind === Kind.FRAGMENT_DEFINITION ? [[d.name.value, d]] : [])));
  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION && definition.kind !== Kind.FRAGMENT_DEFINITION) continue;
    const size = sizeOf(schema, definition, fragments, variables);
    for (const [what, max] of Object.entries(limits)) {
      const value = size[what as keyof Size];
      if (value > max) throw new ApiError('LIMIT', `The document has more than ${max} ${what === 'depth' ? 'levels' : what}. Split it.`);
    }
    if (definition.kind === Kind.OPERATION_DEFINITION) checkAlone(definition, fragments);
  }
}

type Fragments = ReadonlyMap<string, FragmentDefinitionNode>;

function sizeOf(
  schema: GraphQLSchema,
  definition: OperationDefinitionNode | FragmentDefinitionNode,
  fragments: Fragments,
  given: Record<string, unknown>,
): Size {
  const variables = new Map(Object.entries(given));
  for (const { variable, defaultValue } of definition.variableDefinitions ?? []) {
    if (defaultValue && !variables.has(variable.name.value)) variables.set(variable.name.value, valueFromASTUntyped(defaultValue));
  }
  const measured = new Map<string, Size>();

  const measure = (set: SelectionSetNode, type: GraphQLNamedType | null | undefined, open: ReadonlySet<string>): Size => {
    const size: Size = { depth: 0, aliases: 0, selections: 0, nodes: 0 };
    for (const selection of set.selections) {
      const one: Size = { depth: 0, aliases: 0, selections: 1, nodes: 0 };
      if (selection.kind === Kind.FIELD) {
        const field = isObjectType(type) || isInterfaceType(type) ? type.getFields()[selection.name.value] : undefined;
        const inner = selection.selectionSet ? measure(selection.selectionSet, field && getNamedType(field.type), open) : nothing;
        one.depth = inner.depth + 1;
        one.aliases = inner.aliases + (selection.alias ? 1 : 0);
        one.selections += inner.selections;
        one.nodes = listSize(field, selection.arguments ?? [], variables) * Math.max(1, inner.nodes);
      } else {
        const condition = selection.kind === Kind.INLINE_FRAGMENT ? selection.typeCondition : undefined;
        const inner =
          selection.kind === Kind.INLINE_FRAGMENT
            ? measure(selection.selectionSet, condition ? schema.getType(condition.name.value) : type, open)
            : spread(selection.name.value, open);
        one.depth = inner.depth;
        one.aliases = inner.aliases;
        one.selections += inner.selections;
        one.nodes = inner.nodes;
      }
      size.depth = Math.max(size.depth, one.depth);
      size.aliases += one.aliases;
      size.selections += one.selections;
      size.nodes += one.nodes;
    }
    return size;
  };

  // A fragment inside itself is left to validation, which refuses it.
  const spread = (name: string, open: ReadonlySet<string>): Size => {
    const fragment = fragments.get(name);
    if (!fragment || open.has(name)) return nothing;
    const size =
      measured.get(name) ?? measure(fragment.selectionSet, schema.getType(fragment.typeCondition.name.value), new Set([...open, name]));
    measured.set(name, size);
    return size;
  };

  const root =
    definition.kind === Kind.OPERATION_DEFINITION
      ? schema.getRootType(definition.operation)
      : schema.getType(definition.typeCondition.name.value);
  return measure(definition.selectionSet, root, new Set());
}

function checkAlone(operation: OperationDefinitionNode, fragments: Fragments): void {
  if (operation.operation !== 'mutation') return;
  let used = 0;
  const visited = new Set<string>();
  const visit = (set: SelectionSetNode): void => {
    for (const selection of set.selections) {
      if (selection.kind === Kind.FIELD) used += alone.has(selection.name.value) ? 1 : 0;
      else if (selection.kind === Kind.INLINE_FRAGMENT) visit(selection.selectionSet);
      else if (!visited.has(selection.name.value)) {
        visited.add(selection.name.value);
        const fragment = fragments.get(selection.name.value);
        if (fragment) visit(fragment.selectionSet);
      }
    }
  };
  visit(operation.selectionSet);
  if (used > 1) throw new ApiError('LIMIT', `A document holds one of ${[...alone].join(', ')}.`);
}

/** How many objects a field returns as far as its arguments, given or by default, tell: `first`, the length of `ids`, otherwise 1. */
function listSize(
  field: GraphQLField<unknown, unknown> | undefined,
  args: readonly ArgumentNode[],
  variables: ReadonlyMap<string, unknown>,
) {
  const given = new Map(args.map(({ name, value }) => [name.value, value]));
  const argument = (name: string): unknown => {
    const node = given.get(name);
    if (!node) {
      const arg = field?.args.find((a) => a.name === name);
      return arg?.default?.value ?? arg?.defaultValue;
    }
    return node.kind === Kind.VARIABLE ? variables.get(node.name.value) : node.kind === Kind.INT ? Number(node.value) : node;
  };
  const first = argument('first');
  const ids = argument('ids');
  const idCount = Array.isArray(ids) ? ids.length : ((ids as ListValueNode | undefined)?.values?.length ?? 1);
  return Math.max(1, typeof first === 'number' ? first : 1, idCount);
}

export function parseLimited(source: string | Source): DocumentNode {
  const text = typeof source === 'string' ? source : source.body;
  if (text.length > limits.characters) throw new ApiError('LIMIT', `The document has more than ${limits.characters} characters.`);
  try {
    return parse(source, { maxTokens: limits.tokens });
  } catch (error) {
    if (error instanceof GraphQLError && error.message.includes('Document contains more than')) {
      throw new ApiError('LIMIT', `The document has more than ${limits.tokens} tokens. Split it.`);
    }
    throw error;
  }
}

export const useLimits: Plugin<{ params: { variables?: Record<string, unknown> } }> = {
  onParse({ setParseFn }) {
    setParseFn(parseLimited);
  },
  onValidate({ params: { schema, documentAST }, context }) {
    checkDocument(schema, documentAST, context.params?.variables ?? {});
  },
};
