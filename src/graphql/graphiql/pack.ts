import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import { css, editorWorkerService, graphqlWorker, js, jsonWorker } from '@graphql-yoga/render-graphiql/graphiql';
import { examples } from './examples.ts';

/** What the thread of this file answers. */
export interface Packed {
  /** Changes with every byte of the files: it is part of their addresses, so that they can be cached for ever. */
  version: string;
  /** Name → content, compressed with gzip. */
  files: Map<string, Uint8Array>;
}

const own = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8');

const files: Record<string, string> = {
  'page.html': own('page.html'),
  'page.css': own('page.css'),
  'favicon.svg': own('favicon.svg'),
  'boot.js': own('boot.js'),
  'session.js': own('session.js'),
  'examples.js': `export const examples = ${JSON.stringify(examples)};\n`,
  'graphql-ws.js': readFileSync(new URL('../umd/graphql-ws.min.js', import.meta.resolve('graphql-ws')), 'utf8'),
  'graphiql.js': js,
  'graphiql.css': css,
  // Monaco asks for its workers by these names.
  'editorWorkerService.js': editorWorkerService,
  'json.js': jsonWorker,
  'graphql.js': graphqlWorker,
};

const hash = createHash('sha256');
for (const text of Object.values(files)) hash.update(text);
const version = hash.digest('base64url').slice(0, 16);
files['page.html'] = own('page.html').replaceAll('{{version}}', version);

parentPort?.postMessage({
  version,
  files: new Map(Object.entries(files).map(([name, text]) => [name, gzipSync(text)])),
} satisfies Packed);
