/** Documents that ask for as much as the limits allow: of each list of the schema, and of each list inside it. */
import { request } from 'node:http';
import {
  type DocumentNode,
  type GraphQLField,
  type GraphQLObjectType,
  type GraphQLSchema,
  getNamedType,
  isLeafType,
  isObjectType,
  isRequiredArgument,
  parse,
} from 'graphql';
import { checkDocument } from '../../src/graphql/limits.ts';
import { stretchesOf } from './eventLoop.ts';
import type { Api } from './training.ts';

const pageMax = 100;
type Field = GraphQLField<unknown, unknown>;

/** A field, what is selected of it, and how many of it at most. */
interface Path {
  field: Field;
  connection: boolean;
}

const fieldsOf = (type: GraphQLObjectType): Field[] => Object.values(type.getFields()).filter(({ args }) => !args.some(isRequiredArgument));

/** The type of the items of a field, and whether they are in the pages of a connection. */
function itemsOf({ type }: Field): { type: GraphQLObjectType; connection: boolean } | null {
  const named = getNamedType(type);
  if (!isObjectType(named)) return null;
  const nodes = named.getFields().nodes;
  const node = nodes && getNamedType(nodes.type);
  return isObjectType(node) ? { type: node, connection: true } : { type: named, connection: false };
}

/** All that has no fields of its own. */
const leavesOf = (type: GraphQLObjectType, unwanted: ReadonlySet<string>): string[] =>
  fieldsOf(type)
    .filter((field) => isLeafType(getNamedType(field.type)) && !unwanted.has(`${type.name}.${field.name}`))
    .map(({ name }) => name);

const isAllowed = (schema: GraphQLSchema, document: DocumentNode): boolean => {
  try {
    checkDocument(schema, document);
    return true;
  } catch {
    return false;
  }
};

/**
 * The documents by what they ask for, such as `models.versions`: `depth` lists inside one another, each of the outer ones with as many items as
 * are allowed with all leaves of the innermost.
 *
 * @param unwanted fields, such as `Report.verified`, that are left out.
 */
export function dearestDocuments(schema: GraphQLSchema, depth: number, unwanted: ReadonlySet<string> = new Set()): Map<string, string> {
  const documents = new Map<string, string>();
  const visit = (path: Path[], type: GraphQLObjectType): void => {
    const name = path.map(({ field }) => field.name).join('.');
    const leaves = leavesOf(type, unwanted);
    for (let first = pageMax; leaves.length > 0 && first >= 1; first = first > 10 ? first - 10 : first - 1) {
      const text = textOf(path, leaves, first);
      if (!isAllowed(schema, parse(text))) continue;
      documents.set(name, text);
      break;
    }
    if (path.length === depth) return;
    for (const field of fieldsOf(type)) {
      const items = itemsOf(field);
      if (!items || unwanted.has(`${type.name}.${field.name}`)) continue;
      // What leads back shows nothing new.
      if (path.some((one) => getNamedType(one.field.type) === getNamedType(field.type))) continue;
      visit([...path, { field, connection: items.connection }], items.type);
    }
  };
  const query = schema.getQueryType();
  for (const field of query ? fieldsOf(query) : []) {
    const items = itemsOf(field);
    if (items && !unwanted.has(`Query.${field.name}`)) visit([{ field, connection: items.connection }], items.type);
  }
  return documents;
}

function textOf(path: readonly Path[], leaves: string[], first: number): string {
  let text = leaves.join(' ');
  for (const { field, connection } of path.toReversed()) {
    const counted = field.args.some((one) => one.name === 'first') ? `(first: ${first})` : '';
    text = `${field.name}${counted} { ${connection ? `nodes { ${text} }` : text} }`;
  }
  return `{ ${text} }`;
}

/** Processor time in milliseconds that a piece of work takes here, whatever the machine, where it takes 20 on the one that the limit was set on. */
function twentyMs(): number {
  const text = JSON.stringify(Array.from({ length: 10_000 }, (_, n) => `class number ${n}`));
  const used = () => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  };
  const times = Array.from({ length: 5 }, () => {
    const before = used();
    for (let n = 0; n < 60; n += 1) JSON.parse(text);
    return used() - before;
  });
  return Math.min(...times);
}

/** Asks and throws the answer away, of which only the errors matter. */
function askAndForget({ url, token }: Api, query: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
    const asked = request(`${url}/graphql`, { method: 'POST', headers }, (response) => {
      let first = '';
      response.on('data', (piece: Buffer) => {
        first ||= piece.toString('latin1', 0, 500);
      });
      response.on('end', () => (first.startsWith('{"data":') ? resolve() : reject(new Error(`${query}: ${first}`))));
      response.on('error', reject);
    });
    asked.on('error', reject);
    asked.end(JSON.stringify({ query }));
  });
}

/** Of a document, in milliseconds of a machine of usual speed. */
export interface DocumentStretch {
  name: string;
  /** The longest stretch without a turn of the event loop. */
  ms: number;
  /** The same, without what the collector of garbage took of each. */
  workMs: number;
}

/** The longest stretch of each document, the longest work first. */
export async function stretchesOfDocuments(documents: Map<string, string>, api: Api): Promise<DocumentStretch[]> {
  const unit = twentyMs() / 20;
  const found: DocumentStretch[] = [];
  for (const [name, text] of documents) {
    const all: number[] = [];
    const works: number[] = [];
    // The first answer also compiles, and the collector of garbage takes its time in any of them.
    for (let times = 0; times < 3 && (times < 2 || Math.min(...all) > 20); times += 1) {
      const { longest, longestOfWork } = await stretchesOf(() => askAndForget(api, text));
      all.push(longest / 1000 / unit);
      works.push(longestOfWork / 1000 / unit);
    }
    found.push({ name, ms: Math.min(...all), workMs: Math.min(...works) });
  }
  return found.sort((a, b) => b.workMs - a.workMs);
}
