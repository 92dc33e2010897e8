import { type DocumentNode, GraphQLError, Kind, type OperationDefinitionNode, parse, type SelectionSetNode, type Source } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import { ApiError } from '../errors.ts';

/** What a document may be. GraphiQL's introspection has 13 levels, 200 selections and no alias. */
export const limits = {
  /** Characters of a document. */
  characters: 65_536,
  tokens: 2_000,
  depth: 20,
  aliases: 50,
  /** Fields and fragments, each fragment counted where it is used: validation compares them pair by pair. */
  selections: 600,
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

/**
 * Refuses a document beyond the limits before validation, whose cost grows with the square of the selections (30 × 30 overlapping
 * inline fragments: 158 CPU-ms). One pass; a fragment is measured once.
 */
export function checkDocument(document: DocumentNode, variables: Record<string, unknown> = {}): void {
  const fragments = new Map(document.definitions.flatMap((d) => (d.kind === Kind.FRAGMENT_DEFINITION ? [[d.name.value, d]] : [])));
  const measured = new Map<string, Size>();

  const measure = (set: SelectionSetNode | undefined, open: ReadonlySet<string>): Size => {
    const size: Size = { depth: 0, aliases: 0, selections: 0, nodes: 0 };
    for (const selection of set?.selections ?? []) {
      const one: Size = { depth: 0, aliases: 0, selections: 1, nodes: 0 };
      if (selection.kind === Kind.FIELD) {
        const inner = measure(selection.selectionSet, open);
        const items = listSize(selection.arguments ?? [], variables);
        one.depth = inner.depth + 1;
        one.aliases = inner.aliases + (selection.alias ? 1 : 0);
        one.selections += inner.selections;
        one.nodes = items * Math.max(1, inner.nodes);
      } else {
        const inner = selection.kind === Kind.INLINE_FRAGMENT ? measure(selection.selectionSet, open) : spread(selection.name.value, open);
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
    const nothing = { depth: 0, aliases: 0, selections: 0, nodes: 0 };
    const size = measured.get(name) ?? (open.has(name) ? nothing : measure(fragments.get(name)?.selectionSet, new Set([...open, name])));
    measured.set(name, size);
    return size;
  };

  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue;
    const size = measure(definition.selectionSet, new Set());
    for (const [what, max] of Object.entries(limits)) {
      const value = size[what as keyof Size];
      if (value > max) throw new ApiError('LIMIT', `The document has more than ${max} ${what === 'depth' ? 'levels' : what}. Split it.`);
    }
    checkAlone(definition, fragments);
  }
}

function checkAlone(operation: OperationDefinitionNode, fragments: ReadonlyMap<string, { selectionSet: SelectionSetNode }>): void {
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

type Arguments = NonNullable<Extract<SelectionSetNode['selections'][number], { kind: Kind.FIELD }>['arguments']>;

/** How many objects a field returns as far as its arguments tell: `first`, the length of `ids`, otherwise 1. */
function listSize(args: Arguments, variables: Record<string, unknown>): number {
  let size = 1;
  for (const { name, value } of args) {
    const given = value.kind === Kind.VARIABLE ? variables[value.name.value] : value.kind === Kind.INT ? Number(value.value) : undefined;
    if (name.value === 'first' && typeof given === 'number') size = Math.max(size, given);
    if (name.value === 'ids' && Array.isArray(given)) size = Math.max(size, given.length);
    if (name.value === 'ids' && value.kind === Kind.LIST) size = Math.max(size, value.values.length);
  }
  return size;
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
  onValidate({ params: { documentAST }, context }) {
    checkDocument(documentAST, context.params?.variables ?? {});
  },
};
