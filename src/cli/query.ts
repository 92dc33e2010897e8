/** `whetstone query`: a GraphQL document of the user, for scripts. */
import type { ClientSession } from '../../client/upload.ts';
import { ask } from './client.ts';

/** `name=value` of a command line. A value is JSON, unless the document declares the variable as text or it is no JSON. */
export function variablesOf(document: string, given: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    given.map((pair) => {
      const [, name = '', value = ''] = /^(\w+)=(.*)$/s.exec(pair) ?? [];
      if (name === '') throw new Error(`--var ${pair} has no name. Write --var name=value.`);
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

/** The data of the answer. Throws the messages of errors, also those that a mutation answers in `userErrors`. */
export async function query(
  session: ClientSession,
  document: string,
  variables: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const data = await ask(session, document, variables);
  const userErrors = Object.values(data).flatMap((payload) => (payload as { userErrors?: { message: string }[] } | null)?.userErrors ?? []);
  if (userErrors.length > 0) throw new Error(userErrors.map(({ message }) => message).join('\n'));
  return data;
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
