/** The Open Inference Protocol V2 with its binary tensor extension: what requests and answers are made of. */
import { z } from 'zod';
import { tensorBytesOf } from '../engine/datatypes.ts';
import { Priority } from './config.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';
import type { Feed, OutputTensor, ServedPort } from './pool.ts';
import { bytesFromJson, jsonOfBytes } from './tensors.ts';

const jsonBytesMax = 16 * 2 ** 20;
export const timeoutUsMax = 60_000_000;

/** Parameters that mean something here; others are for other servers. */
const known = z.object({
  timeout: z.number().min(0).optional().describe("Microseconds from the arrival of the body to the answer; 0 is the model's own deadline."),
  priority: z.int().min(0).max(10).optional().describe("1 goes first, 10 last; 0, and what is before the model's own, is the model's own."),
  binary_data_output: z.boolean().optional().describe('Of a request: whether outputs come as binary tensors.'),
  binary_data_size: z.int().min(0).optional().describe('Of an input: its bytes behind the JSON, in place of `data`.'),
  binary_data: z.boolean().optional().describe('Of an output: whether it comes as a binary tensor.'),
  // What cannot be ignored: the answer would be another one.
  classification: z.never({ error: 'the classification extension is not served: use /predict' }).optional(),
  shared_memory_region: z.never({ error: 'shared memory is not served' }).optional(),
  sequence_id: z.never({ error: 'sequences are not served' }).optional(),
});

export const InferJson = z.object({
  id: z.string().max(1000).optional(),
  parameters: known.optional(),
  inputs: z
    .array(
      z.object({
        name: z.string(),
        datatype: z.string(),
        shape: z
          .array(
            z
              .int()
              .min(1, 'a dimension is 1 or more')
              .max(2 ** 31),
          )
          .max(16),
        parameters: known.optional(),
        data: z.unknown().optional(),
      }),
    )
    .max(1000),
  outputs: z
    .array(z.object({ name: z.string(), parameters: known.optional() }))
    .max(1000)
    .optional(),
});
type InferJson = z.infer<typeof InferJson>;

export interface WantedOutput {
  name: string;
  binary: boolean;
}

export interface InferRequest {
  id: string | undefined;
  feeds: Feed[];
  outputs: WantedOutput[];
  /** Items along the batch axis; 1 where the model has none. */
  rows: number;
  timeoutMs: number | undefined;
  priority: number | undefined;
}

/** What has to be known of a model to read a request to it. */
export type ReadBy = Pick<ServedModel, 'signature' | 'batched'> & { config: Pick<ServedModel['config'], 'batchMax'> };

/**
 * A request from its body, which is JSON, or `jsonLength` bytes of JSON (the header Inference-Header-Content-Length) with the binary
 * tensors behind it. Throws a HttpError (400, 413).
 */
export function parseInfer({ signature, batched, config }: ReadBy, body: Buffer, jsonLength: number | undefined): InferRequest {
  const { length } = body;
  const end = jsonLength ?? length;
  if (end > length) throw new HttpError(400, `Inference-Header-Content-Length is ${end}, but the body has ${length} bytes.`);
  if (end > jsonBytesMax) throw new HttpError(413, `JSON can have ${jsonBytesMax} bytes at most. Send large tensors as binary data.`);
  const json = parseJson(body.subarray(0, end));
  const { feeds, read } = readInputs(json, signature.inputs, batched ? config.batchMax : Number.POSITIVE_INFINITY, body, end);
  if (read !== length) throw new HttpError(400, `The body has ${length - read} bytes more than its binary_data_size say.`);
  return {
    id: json.id,
    feeds,
    outputs: wantedOutputs(json, signature.outputs),
    rows: batched ? rowsOf(feeds) : 1,
    ...limitsOf(json),
  };
}

/** What decides whether a request can be in time. */
export type RequestLimits = Pick<InferRequest, 'rows'> & Partial<Pick<InferRequest, 'timeoutMs' | 'priority'>>;

/** From the JSON alone that binary tensors follow. Throws a HttpError (400). */
export function parseLimits({ batched, config }: ReadBy, head: Buffer): RequestLimits {
  const json = parseJson(head);
  const [{ shape: [rows = 1] = [] } = {}] = json.inputs;
  return { rows: batched ? Math.min(rows, config.batchMax) : 1, ...limitsOf(json) };
}

/** 0 is what clients send for "the model's own". */
function limitsOf({ parameters: { timeout, priority } = {} }: InferJson): Pick<InferRequest, 'timeoutMs' | 'priority'> {
  return {
    timeoutMs: timeout ? Math.min(timeout, timeoutUsMax) / 1000 : undefined,
    priority: priority ? Priority.parse(priority) : undefined,
  };
}

function parseJson(bytes: Buffer): InferJson {
  const text = bytes.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const found = /(?=-?[NI])(?<=[[,:]\s*)-?(?:NaN|Infinity)\b/.exec(text);
    throw new HttpError(
      400,
      found
        ? `The body is not JSON: ${found[0]} at character ${found.index}. JSON has no such number: send the tensor as binary data.`
        : `The body is not JSON: ${(error as Error).message}. Where binary tensors follow, Inference-Header-Content-Length says how long the JSON is.`,
    );
  }
  const parsed = InferJson.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new HttpError(400, `The request is wrong at ${issue?.path.join('.') || 'its top'}: ${issue?.message}`);
}

/** The inputs in the model's order, and where their last byte is. */
function readInputs(
  { inputs }: InferJson,
  ports: readonly ServedPort[],
  rowsMax: number,
  body: Buffer,
  start: number,
): { feeds: Feed[]; read: number } {
  const found = new Map<string, Feed>();
  let at = start;
  for (const { name, datatype, shape, parameters, data } of inputs) {
    const port = ports.find((one) => one.name === name);
    if (!port) throw new HttpError(400, `The model has no input ${name}; it has ${ports.map((one) => one.name).join(', ')}.`);
    if (found.has(name)) throw new HttpError(400, `Input ${name} is there twice.`);
    if (datatype !== port.datatype) throw new HttpError(400, `Input ${name} is ${port.datatype}, not ${datatype}.`);
    if (!fits(shape, port.shape)) throw new HttpError(400, `Input ${name} has the shape [${shapeOf(port)}]; [${shape}] does not fit.`);
    const [rows = 1] = shape;
    // Nobody has measured what a run of more takes, in time and in memory.
    if (rows > rowsMax) throw new HttpError(400, `Input ${name} has ${rows} items; the model takes ${rowsMax} at most (batchMax).`);
    const size = parameters?.binary_data_size;
    let pieces: Uint8Array[];
    if (size === undefined) {
      pieces = [bytesFromJson(name, port.datatype, shape, data)];
    } else {
      const needed = tensorBytesOf({ datatype: port.datatype, shape });
      if (size !== needed)
        throw new HttpError(400, `Input ${name} of shape [${shape}] needs ${needed} bytes; its binary_data_size is ${size}.`);
      pieces = [body.subarray(at, at + size)];
      at += size;
      if (at > body.length) throw new HttpError(400, `The body ends inside of input ${name}.`);
    }
    found.set(name, { name, datatype: port.datatype, shape, pieces });
  }
  const missing = ports.filter(({ name }) => !found.has(name));
  if (missing.length > 0) throw new HttpError(400, `Missing input: ${missing.map(({ name }) => name).join(', ')}.`);
  return { feeds: ports.map(({ name }) => found.get(name) as Feed), read: at };
}

const fits = (shape: readonly number[], wanted: ServedPort['shape']): boolean =>
  shape.length === wanted.length && wanted.every((dim, i) => typeof dim === 'string' || dim === shape[i]);

function rowsOf(feeds: readonly Feed[]): number {
  const [rows, ...others] = new Set(feeds.map(({ shape }) => shape[0] as number));
  if (others.length > 0) throw new HttpError(400, 'The inputs have different batch sizes.');
  return rows as number;
}

function wantedOutputs({ outputs, parameters }: InferJson, ports: readonly ServedPort[]): WantedOutput[] {
  const binary = parameters?.binary_data_output ?? false;
  if (!outputs || outputs.length === 0) return ports.map(({ name }) => ({ name, binary }));
  const unknown = outputs.find(({ name }) => !ports.some((port) => port.name === name));
  if (unknown) throw new HttpError(400, `The model has no output ${unknown.name}; it has ${ports.map(({ name }) => name).join(', ')}.`);
  if (new Set(outputs.map(({ name }) => name)).size < outputs.length) throw new HttpError(400, 'An output is asked for twice.');
  return outputs.map((output) => ({ name: output.name, binary: output.parameters?.binary_data ?? binary }));
}

/** Requests with the same key differ in nothing but the rows of their inputs. */
export const batchKeyOf = ({ feeds, outputs }: Pick<InferRequest, 'feeds' | 'outputs'>): string =>
  JSON.stringify([feeds.map(({ shape }) => shape.slice(1)), outputs.map(({ name }) => name)]);

// --------------------------------------------------------------------------------------------------------------- answers

export interface InferResponse {
  /** Of the JSON where binary tensors follow it. */
  jsonLength: number | undefined;
  pieces: Uint8Array[];
}

export function makeResponse(
  { config }: { config: Pick<ServedModel['config'], 'name' | 'version'> },
  id: string | undefined,
  wanted: readonly WantedOutput[],
  outputs: readonly OutputTensor[],
): InferResponse {
  const binary = outputs.filter((_, i) => wanted[i]?.binary);
  // Put together by hand: 64-bit integers are no numbers of JSON.stringify.
  const tensors = outputs.map((output) => {
    const { name, datatype, shape, data } = output;
    const head = `{"name":${JSON.stringify(name)},"datatype":"${datatype}","shape":${JSON.stringify(shape)}`;
    return binary.includes(output)
      ? `${head},"parameters":{"binary_data_size":${data.length}}}`
      : `${head},"data":${jsonOfBytes(datatype, data)}}`;
  });
  const about = JSON.stringify({ model_name: config.name, model_version: String(config.version), id });
  const json = Buffer.from(`${about.slice(0, -1)},"outputs":[${tensors.join(',')}]}`);
  return { jsonLength: binary.length > 0 ? json.length : undefined, pieces: [json, ...binary.map(({ data }) => data)] };
}

// -------------------------------------------------------------------------------------------------------------- metadata

const shapeOf = ({ shape }: ServedPort): number[] => shape.map((dim) => (typeof dim === 'number' ? dim : -1));

export const serverMetadata = (version: string) => ({
  name: 'whetstone',
  version,
  extensions: ['binary_tensor_data', 'model_configuration', 'schedule_policy', 'statistics'],
});

export function modelMetadata({ config, signature }: ServedModel, versions: readonly number[]) {
  const ports = (all: readonly ServedPort[]) => all.map((port) => ({ name: port.name, datatype: port.datatype, shape: shapeOf(port) }));
  return {
    name: config.name,
    versions: versions.map(String),
    platform: 'onnxruntime_onnx',
    inputs: ports(signature.inputs),
    outputs: ports(signature.outputs),
  };
}

/** NVIDIA's model configuration, as far as clients read it. Where the model has a batch axis, `dims` are without it. */
export function modelConfiguration({ config, signature, batched, batchMax }: ServedModel) {
  const ports = (all: readonly ServedPort[]) =>
    all.map((port) => ({ name: port.name, data_type: `TYPE_${port.datatype}`, dims: shapeOf(port).slice(batched ? 1 : 0) }));
  return {
    name: config.name,
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    max_batch_size: batched ? config.batchMax : 0,
    input: ports(signature.inputs),
    output: ports(signature.outputs),
    ...(batchMax > 1 ? { dynamic_batching: { preferred_batch_size: [batchMax] } } : {}),
    model_transaction_policy: { decoupled: false },
    response_cache: { enable: false },
  };
}

const counted = (count: number, ms: number) => ({ count, ns: Math.round(1e6 * ms) });

/** The counters as the statistics extension names them; preprocessing is `compute_input`, postprocessing `compute_output`. */
export function modelStatistics({ config, stats }: ServedModel) {
  const { ok, failed } = stats.ended;
  const { queue, preprocessing, compute, postprocessing } = stats.partMs;
  return {
    name: config.name,
    version: String(config.version),
    last_inference: stats.lastAt,
    inference_count: stats.inferences,
    execution_count: stats.executions,
    inference_stats: {
      success: counted(ok, stats.totalMs),
      fail: counted(failed, stats.failedMs),
      queue: counted(ok, queue),
      compute_input: counted(ok, preprocessing),
      compute_infer: counted(ok, compute),
      compute_output: counted(ok, postprocessing),
      cache_hit: counted(0, 0),
      cache_miss: counted(0, 0),
    },
    batch_stats: [...stats.runs].map(([batch_size, { count, computeMs }]) => ({
      batch_size,
      compute_input: counted(count, 0),
      compute_infer: counted(count, computeMs),
      compute_output: counted(count, 0),
    })),
  };
}

export const repositoryEntry = ({ config }: ServedModel) => ({
  name: config.name,
  version: String(config.version),
  state: 'READY',
  reason: '',
});
