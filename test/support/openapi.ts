/** Holds a running process against the OpenAPI document that it serves. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { python } from './inference.ts';

// biome-ignore lint/suspicious/noExplicitAny: JSON that the test looks into
export type Document = any;

/** An answer to `method path`, a path of the document. `contentType` where it has a body, `value` where that is JSON or text. */
export interface Answered {
  operation: string;
  status: number;
  contentType: string | undefined;
  value?: unknown;
}

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch'];

/** Every `method path` that is documented. */
export const operationsOf = ({ paths }: Document): string[] =>
  Object.entries(paths).flatMap(([path, item]) =>
    Object.keys(item as object)
      .filter((key) => methods.includes(key))
      .map((method) => `${method} ${path}`),
  );

/** What of the answers is not as documented: a status, a type, a body. */
export function undocumented(document: Document, answers: readonly Answered[]): string[] {
  const problems: string[] = [];
  const bodies: { what: string; pointer: string; value: unknown }[] = [];
  for (const { operation, status, contentType = '', value } of answers) {
    const what = `${operation} → ${status}`;
    const [method, path] = operation.split(' ') as [string, string];
    const type = contentType.replace(/;.*/, '');
    const response = document.paths[path]?.[method]?.responses[status];
    if (!response) problems.push(`${what} is not documented`);
    else if (type && !response.content?.[type]) problems.push(`${what}: ${type} is not documented`);
    else if (value !== undefined) {
      const steps = ['paths', path, method, 'responses', String(status), 'content', type, 'schema'];
      const pointer = `#/${steps.map((step) => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`;
      bodies.push({ what, pointer, value });
    }
  }
  const { stdout, stderr } = spawnSync(python, ['-P', join(import.meta.dirname, 'check_answers.py')], {
    input: JSON.stringify({ document, answers: bodies }),
    encoding: 'utf8',
  });
  if (stderr) throw new Error(stderr);
  const said: (string | null)[] = JSON.parse(stdout);
  return [...problems, ...bodies.flatMap(({ what }, i) => (said[i] ? [`${what}: ${said[i]}`] : []))];
}

/** Every `$ref` of the document that leads nowhere. */
export function brokenRefs(document: Document): string[] {
  const refs = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path as string);
  return refs.filter((path) => path.split('/').reduce((at, step) => at?.[step], document) === undefined);
}
