import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll } from 'vitest';
import { parseHostConfig } from '../../src/inference/config.ts';
import { type RunningHost, startHost } from '../../src/inference/host.ts';
import { createLog } from '../../src/log.ts';

export const python = join(import.meta.dirname, '..', '..', 'trainer', '.venv', 'bin', 'python');

/** Settings as a user writes them; `file` and `sha256` of a model are filled in. */
export type Settings = Record<string, unknown> & { models: (Record<string, unknown> & { name: string })[] };

/** Writes models of `inference_models.py` as `<name>.onnx`. */
export async function makeInferenceModels(folder: string, names: string[]): Promise<void> {
  const script = join(import.meta.dirname, 'inference_models.py');
  await promisify(execFile)(python, ['-P', script, folder, ...names]);
}

/** Makes each model of `inference_models.py` that the settings name (by `model`, or else by `name`) in a new folder. */
export async function withModelFiles(settings: Settings): Promise<{ folder: string; settings: Settings }> {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
  const kindOf = ({ name, model = name }: Settings['models'][number]) => String(model);
  await makeInferenceModels(folder, [...new Set(settings.models.map(kindOf))]);
  const models = settings.models.map((model) => {
    const file = `${kindOf(model)}.onnx`;
    const { model: _, ...rest } = model;
    const sha256 = createHash('sha256')
      .update(readFileSync(join(folder, file)))
      .digest('hex');
    return { version: 1, file, sha256, ...rest };
  });
  return { folder, settings: { host: '127.0.0.1', port: 0, permits: 1, ...settings, models } };
}

/** A host of this process for all tests of a file, given to `use` before the first. */
export function withHost(asked: Settings, use: (host: RunningHost) => void): void {
  let host: RunningHost | undefined;
  let folder = '';
  beforeAll(async () => {
    const made = await withModelFiles(asked);
    folder = made.folder;
    host = await startHost(parseHostConfig(made.settings, folder, 8), createLog({ logLevel: 'silent' }));
    use(host);
  });
  afterAll(async () => {
    await host?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
}

export interface Got {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: what a test looks into
  json: any;
}

export interface Sent {
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  agent?: Agent;
  signal?: AbortSignal;
}

/** One request over `node:http`, which adds no header of its own. */
export function call(url: string, { method = 'GET', headers = {}, body, agent, signal }: Sent = {}): Promise<Got> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const req = request(url, { method, headers: { ...length, ...headers }, ...(agent ? { agent } : {}), signal }, (res) => {
      const pieces: Buffer[] = [];
      res.on('data', (piece: Buffer) => pieces.push(piece));
      res.on('error', reject);
      res.on('end', () => {
        const bytes = Buffer.concat(pieces);
        const isJson = res.headers['content-type'] === 'application/json' && !res.headers['content-encoding'] && bytes.length > 0;
        resolve({
          status: res.statusCode as number,
          headers: res.headers as Record<string, string>,
          body: bytes,
          json: isJson ? JSON.parse(bytes.toString()) : undefined,
        });
      });
    });
    req.on('error', reject).end(body);
  });
}

export const inferJson = (url: string, model: string, json: unknown, sent: Sent = {}): Promise<Got> =>
  call(`${url}/v2/models/${model}/infer`, { method: 'POST', body: JSON.stringify(json), ...sent });

/** A request with binary tensors behind its JSON. */
export function binaryBody(json: unknown, ...tensors: Uint8Array[]): { body: Buffer; headers: Record<string, string> } {
  const head = Buffer.from(JSON.stringify(json));
  return { body: Buffer.concat([head, ...tensors]), headers: { 'inference-header-content-length': String(head.length) } };
}

/** The value of a line of `/metrics` that begins like this. */
export async function metric(url: string, start: string): Promise<number> {
  const { body } = await call(`${url}/metrics`);
  const line = body
    .toString()
    .split('\n')
    .find((one) => one.startsWith(start));
  return Number(line?.split(' ').at(-1));
}

/** A request to the model `spin`: it computes for about so many rounds. */
export const spinJson = (rounds: number, parameters: Record<string, unknown> = {}) => ({
  parameters,
  inputs: [{ name: 'rounds', datatype: 'INT64', shape: [1], data: [rounds] }],
  outputs: [{ name: 'y' }],
});
