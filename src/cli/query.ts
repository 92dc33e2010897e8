/** `whetstone query`: a GraphQL document of the user, for scripts. */
import { InvalidArgumentError } from 'commander';
import type { ClientSession } from '../../client/upload.ts';
import { ask } from './client.ts';

/** `name=value` of a command line. */
export function parseVariable(pair: string): [name: string, value: string] {
  const [, name = '', value = ''] = /^(\w+)=(.*)$/s.exec(pair) ?? [];
  if (name === '') throw new InvalidArgumentError('It has no name. Write --var name=value.');
  return [name, value];
}

/** A value is JSON, unless the document declares the variable as text or it is no JSON. */
export function variablesOf(document: string, given: readonly [name: string, value: string][]): Record<string, unknown> {
  return Object.fromEntries(
    given.map(([name, value]) => {
      const isText = new RegExp(`\\$${name}\\s*:\\s*(ID|String|DateTime)\\b`).test(document);
      return [name, isText ? value : parsed(value)];
    }),
  );
}

function parsed(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** The data of the answer. Throws the messages of errors, also those that a mutation answers in `userErrors`, for all or for one of several. */
export async function query(
  session: ClientSession,
  document: string,
  variables: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const data = await ask(session, document, variables);
  const aliases = [...document.matchAll(/(\w+)\s*:\s*userErrors\b/g)].map(([, alias]) => String(alias));
  const problems = userErrorsIn(data, new Set(['userErrors', ...aliases]));
  if (problems.length > 0) throw new Error(problems.join('\n'));
  return data;
}

/** What is wrong, with the id of the one of several whose it is. */
function userErrorsIn(value: unknown, names: ReadonlySet<string>): string[] {
  if (typeof value !== 'object' || value === null) return [];
  if (Array.isArray(value)) return value.flatMap((item) => userErrorsIn(item, names));
  const { id } = value as { id?: unknown };
  const whose = typeof id === 'string' ? `${id}: ` : '';
  return Object.entries(value).flatMap(([name, inside]) => {
    if (!names.has(name) || !Array.isArray(inside)) return userErrorsIn(inside, names);
    // Without its message it is what the document asks for.
    return inside.map((error) => whose + (error?.message ?? JSON.stringify(error)));
  });
}

/** The value at `a.b.0`, as a script wants it: text without quotes. */
export function pick(data: unknown, path: string): string {
  let value = data;
  for (const [n, name] of path.split('.').entries()) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) {
      const reached = path.split('.').slice(0, n).join('.') || 'the answer';
      throw new Error(`There is no ${name} in ${reached}: ${JSON.stringify(value).slice(0, 200)}`);
    }
    value = (value as Record<string, unknown>)[name];
  }
  return typeof value === 'string' ? value : JSON.stringify(value);
}
