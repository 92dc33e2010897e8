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
  type OperationDefinitionNode,
  parse,
  type SelectionSetNode,
  type Source,
  valueFromASTUntyped,
} from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { ApiError } from '../errors.ts';
import { fragmentsOf, rootFieldsOf } from './rootFields.ts';

/** What a document may be. The whole introspection query has 15 levels, 240 selections and no alias. */
export const limits = {
  /** Characters of a document. */
  characters: 65_536,
  tokens: 2_000,
  depth: 20,
  aliases: 50,
  /** Fields and fragments, each fragment counted where it is used: validation compares them pair by pair. */
  selections: 300,
  /** Values that a document may read, lists multiplied level by level: see `FieldCost`. */
  cost: 20_000,
} as const;

/** What one more field means to the limit, as a number or by its arguments, which are read with `argument`. */
type Amount = number | ((argument: (name: string) => unknown) => number);

/** `extensions` of a field whose cost its result type and its arguments `first` and `ids` do not tell. */
export interface FieldCost {
  /** What it reads beside the values that are selected of it, in values. */
  cost?: Amount;
  /**
   * Objects in a list, instead of `first` and `ids`: a number that is seldom exceeded. A tenth of it for those that are part of a row that
   * was read already.
   */
  size?: Amount;
}

/** These hand out tokens: one of them in a document, or aliases would make a guessing machine of it. */
const alone = new Set(['login', 'refresh', 'bootstrap', 'changePassword']);

interface Size {
  depth: number;
  aliases: number;
  selections: number;
  cost: number;
}

const nothing: Size = { depth: 0, aliases: 0, selections: 0, cost: 0 };

const names: Partial<Record<string, string>> = { depth: 'levels' };

const tooCostly = (cost: number): string =>
  `The document may read ${Math.ceil(cost)} values; ${limits.cost} are allowed. Ask for fewer items (\`first\`), points or fields at once.`;

/**
 * Refuses a document beyond the limits before validation, whose cost grows with the square of the selections (30 × 30 overlapping
 * inline fragments: 158 CPU-ms). One pass for each operation, and for each fragment, used or not; a fragment is measured once in it.
 */
export function checkDocument(schema: GraphQLSchema, document: DocumentNode, variables: Record<string, unknown> = {}): void {
  const fragments = fragmentsOf(document);
  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION && definition.kind !== Kind.FRAGMENT_DEFINITION) continue;
    const size = sizeOf(schema, definition, fragments, variables);
    for (const [what, max] of Object.entries(limits)) {
      const value = size[what as keyof Size];
      if (value > max)
        throw new ApiError(
          'LIMIT',
          what === 'cost' ? tooCostly(value) : `The document has more than ${max} ${names[what] ?? what}. Split it.`,
        );
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
    const size: Size = { depth: 0, aliases: 0, selections: 0, cost: 0 };
    for (const selection of set.selections) {
      const one: Size = { depth: 0, aliases: 0, selections: 1, cost: 0 };
      if (selection.kind === Kind.FIELD) {
        const field = isObjectType(type) || isInterfaceType(type) ? type.getFields()[selection.name.value] : undefined;
        const inner = selection.selectionSet ? measure(selection.selectionSet, field && getNamedType(field.type), open) : nothing;
        one.depth = inner.depth + 1;
        one.aliases = inner.aliases + (selection.alias ? 1 : 0);
        one.selections += inner.selections;
        one.cost = costOf(field, selection.arguments ?? [], variables, inner.cost);
      } else {
        const condition = selection.kind === Kind.INLINE_FRAGMENT ? selection.typeCondition : undefined;
        const inner =
          selection.kind === Kind.INLINE_FRAGMENT
            ? measure(selection.selectionSet, condition ? schema.getType(condition.name.value) : type, open)
            : spread(selection.name.value, open);
        one.depth = inner.depth;
        one.aliases = inner.aliases;
        one.selections += inner.selections;
        one.cost = inner.cost;
      }
      size.depth = Math.max(size.depth, one.depth);
      size.aliases += one.aliases;
      size.selections += one.selections;
      size.cost += one.cost;
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
  const used = rootFieldsOf(operation, fragments).filter((name) => alone.has(name)).length;
  if (used > 1) throw new ApiError('LIMIT', `A document holds one of ${[...alone].join(', ')}.`);
}

/**
 * The values that a field may read: those that are selected of it, once for each object of a list (by `first`, by the length of `ids`, by
 * `size`), and its own `cost`.
 */
function costOf(
  field: GraphQLField<unknown, unknown> | undefined,
  args: readonly ArgumentNode[],
  variables: ReadonlyMap<string, unknown>,
  inner: number,
): number {
  const given = new Map(args.map(({ name, value }) => [name.value, value]));
  const argument = (name: string): unknown => {
    const node = given.get(name);
    if (!node) {
      const arg = field?.args.find((a) => a.name === name);
      return arg?.default?.value ?? arg?.defaultValue;
    }
    if (node.kind === Kind.VARIABLE) return variables.get(node.name.value);
    if (node.kind === Kind.INT) return Number(node.value);
    return node.kind === Kind.LIST ? node.values : node;
  };
  const { cost, size }: FieldCost = field?.extensions ?? {};
  const amount = (of: Amount | undefined, otherwise: number) => (typeof of === 'function' ? of(argument) : (of ?? otherwise));
  const first = argument('first');
  const ids = argument('ids');
  const items = amount(size, typeof first === 'number' ? first : Array.isArray(ids) ? ids.length : 1);
  return Math.max(0, amount(cost, 0)) + Math.max(1, items) * Math.max(1, inner);
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
