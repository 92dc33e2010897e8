/** `infer` and `predict`: from a request's body to its answer. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Attributes, Span } from '../tracing.ts';
import type { Found } from '../vision/reading.ts';
import { readBody } from './body.ts';
import { nowMs } from './clock.ts';
import type { HostConfig } from './config.ts';
import type { Answer, Dispatcher, Request, Submitted } from './dispatcher.ts';
import { busy, HttpError } from './httpError.ts';
import type { Json } from './json/json.ts';
import type { Holding, Memory } from './memory.ts';
import type { ServedModel } from './models.ts';
import { decodeFeed, labelled, parseQuery, readHeader, readingOf, readOutputsOf } from './predict.ts';
import type { Refusal } from './queue.ts';
import { answerJson, bytesOf, compressed, isOver, jsonType, send, whenOver } from './send.ts';
import type { Timing } from './stats.ts';
import * as v2 from './v2.ts';

/** What it needs of the host. */
export interface Inferring {
  config: HostConfig;
  dispatcher: Dispatcher;
  state: 'LOADING' | 'READY' | 'DRAINING';
  memory: Memory;
  json: Json;
}

/** What a request is about: the model of its address, and its query. */
export interface OneAsked {
  model(): ServedModel;
  query: URLSearchParams;
  /** When its head was there. */
  beganMs: number;
  /** Null where nobody asks for traces. */
  span: Span | null;
}

/** Of JSON before binary tensors, which is usually some hundred bytes. */
const earlyJsonBytesMax = 2 ** 14;

/**
 * While a request holds a model, it is not unloaded. What the request holds of the memory goes back when its work has ended and, where it
 * has an answer, the client has read that or gone: on every way out.
 */
async function held(
  { memory }: Inferring,
  res: ServerResponse,
  model: ServedModel,
  work: (model: ServedModel, holding: Holding) => Promise<void>,
): Promise<void> {
  const holding = memory.open(model.key);
  model.users += 1;
  try {
    await work(model, holding);
    whenOver(res, () => holding.giveAll());
  } catch (error) {
    holding.giveAll();
    throw error;
  } finally {
    model.users -= 1;
  }
}

export const answerInfer = (host: Inferring, req: IncomingMessage, res: ServerResponse, asked: OneAsked): Promise<void> =>
  held(host, res, asked.model(), (model, holding) => inferOn(model, holding, host, req, res, asked));

export const answerPredict = (host: Inferring, req: IncomingMessage, res: ServerResponse, asked: OneAsked): Promise<void> =>
  held(host, res, asked.model(), (model, holding) => predictOn(model, holding, host, req, res, asked));

async function inferOn(
  model: ServedModel,
  holding: Holding,
  host: Inferring,
  req: IncomingMessage,
  res: ServerResponse,
  { beganMs, span }: OneAsked,
): Promise<void> {
  refuseIfDraining(host.state);
  const gone = () => isOver(res);
  const jsonLength = jsonLengthOf(req);
  // The first tensor begins behind the JSON: the run reads it there.
  const head = jsonLength === undefined ? undefined : { bytes: jsonLength, arrived: (json: Buffer) => refuseEarly(host, model, json) };
  const body = await readBody(req, host.config.bodyBytesMax, holding, head);
  const arrivedMs = nowMs();
  const parsed = await host.json.parse(gone, model, body, jsonLength);
  for (const { pieces } of parsed.feeds) {
    // Binary tensors lie in the body.
    holding.count(bytesOf(pieces.filter(({ buffer }) => buffer !== body.buffer)));
  }
  const deadlineMs = arrivedMs + limitMsOf(model, parsed);
  const submitted = submit(host, res, {
    model,
    feeds: parsed.feeds,
    outputs: parsed.outputs.map(({ name }) => name),
    rows: parsed.rows,
    batchKey: v2.batchKeyOf(parsed),
    priority: priorityOf(model, parsed),
    arrivedMs,
    deadlineMs,
    lend: () => lent(holding),
  });
  const answer = await doneOf(submitted, model, res, arrivedMs);
  const doneMs = nowMs();
  holding.count(bytesOf(answer.outputs.map(({ data }) => data)));
  const { jsonLength: headBytes, pieces } = await host.json.print(gone, model, parsed.id, parsed.outputs, answer.outputs);
  holding.count(bytesOf(pieces));
  const type =
    headBytes === undefined
      ? jsonType
      : { 'content-type': 'application/octet-stream', 'inference-header-content-length': String(headBytes) };
  const sent = await compressed(req, pieces);
  const endedMs = nowMs();
  answer.timing.postprocessingMs += endedMs - doneMs;
  model.stats.answered(parsed.rows, answer.timing, endedMs - beganMs);
  span?.set(partsOf(model, parsed.rows, answer.timing));
  // From here on only the answer is held, for as long as the client takes to read it.
  holding.giveAll();
  holding.count(bytesOf(sent.pieces));
  send(res, 200, { ...type, ...sent.headers, ...headersOf(model, answer) }, sent.pieces);
}

async function predictOn(
  model: ServedModel,
  holding: Holding,
  host: Inferring,
  req: IncomingMessage,
  res: ServerResponse,
  { query, beganMs, span }: OneAsked,
): Promise<void> {
  refuseIfDraining(host.state);
  const asked = parseQuery(query);
  if (req.headers['content-type']?.startsWith('multipart/')) {
    const command = `curl --data-binary @image.jpg …/v2/models/${model.config.name}/predict`;
    throw new HttpError(415, `The body is a form (curl -F). Send the image as it is: ${command}`);
  }
  refuseLate(host, model, { rows: 1 });
  const body = await readBody(req, host.config.bodyBytesMax, holding);
  const arrivedMs = nowMs();
  const { pixelBytes, decodingBytes } = await readHeader(model, body).catch((error: HttpError) => {
    // `curl -d` leaves out line ends. --data-binary has the same type.
    if (error.status !== 400 || req.headers['content-type'] !== 'application/x-www-form-urlencoded') throw error;
    throw new HttpError(400, `${error.message} If it was sent by \`curl -d\`, which changes files: use \`--data-binary @image.jpg\`.`);
  });
  const { priority, deadlineMs } = model.config;
  let pixels: Uint8Array | undefined;
  // It has its place in the queue before it is decoded: an image that is not going to be looked at is not.
  const submitted = submit(host, res, {
    model,
    feeds: null,
    outputs: readOutputsOf(model),
    rows: 1,
    // Whatever their sizes are: the run makes tensors of the same shape of them.
    batchKey: 'images',
    priority,
    arrivedMs,
    deadlineMs: arrivedMs + deadlineMs,
    lend: () => {
      const giveBack = lent(holding);
      return () => {
        free(pixels);
        giveBack();
      };
    },
  });
  const done = doneOf(submitted, model, res, arrivedMs);
  try {
    await Promise.race([holding.reserveLater(decodingBytes, submitted.answer), done]);
    const { feed, image } = await decodeFeed(model, body);
    [pixels] = feed.pieces;
    holding.count(pixelBytes - decodingBytes);
    const decodedMs = nowMs();
    submitted.ready([feed], readingOf(model, image, asked));
    const answer = await done;
    answer.timing.preprocessingMs += decodedMs - arrivedMs;
    const found = answer.found as Found;
    if ('problem' in found) {
      model.stats.failed(nowMs() - arrivedMs);
      throw new HttpError(found.problem.code === 'NOT_NUMBERS' ? 500 : 422, found.problem.message);
    }
    model.stats.answered(1, answer.timing, nowMs() - beganMs);
    span?.set(partsOf(model, 1, answer.timing));
    const { name, version } = model.config;
    const said = { model_name: name, model_version: String(version), ...labelled(model, found) };
    holding.giveAll();
    answerJson(res, 200, said, headersOf(model, answer));
  } finally {
    submitted.drop();
    free(pixels);
  }
}

/** What a span says of an answered request. */
const partsOf = ({ config }: ServedModel, items: number, timing: Timing): Attributes => ({
  'whetstone.model': config.name,
  'whetstone.revision': config.version,
  'whetstone.items': items,
  'whetstone.queue_ms': timing.queueMs,
  'whetstone.preprocessing_ms': timing.preprocessingMs,
  'whetstone.compute_ms': timing.computeMs,
  'whetstone.postprocessing_ms': timing.postprocessingMs,
});

/** What the request holds is its run's until the returned function is called. */
function lent(holding: Holding): () => void {
  const run = holding.handOver();
  return () => run.giveAll();
}

/** At once: the collector lets a burst of images lie for a long time. */
function free(bytes: Uint8Array | undefined): void {
  const buffer = bytes?.buffer as ArrayBuffer | undefined;
  if (buffer && !buffer.detached) buffer.transfer(0);
}

export function refuseIfDraining(state: Inferring['state']): void {
  if (state === 'DRAINING') throw new HttpError(503, 'The host is stopping.', { 'retry-after': '1' });
}

function jsonLengthOf(req: IncomingMessage): number | undefined {
  const header = req.headers['inference-header-content-length'];
  if (header === undefined) return undefined;
  if (typeof header !== 'string' || !/^\d{1,12}$/.test(header))
    throw new HttpError(400, 'Inference-Header-Content-Length is a number of bytes.');
  return Number(header);
}

/** A request can stand back behind others, but push none aside. */
const priorityOf = ({ config }: ServedModel, { priority }: v2.RequestLimits): number => Math.max(priority ?? 0, config.priority);
const limitMsOf = ({ config }: ServedModel, { timeoutMs }: v2.RequestLimits): number => timeoutMs ?? config.deadlineMs;

/** Throws where the answer would come after the deadline even if the body were here now. So a refused body is not kept. */
function refuseLate({ dispatcher }: Inferring, model: ServedModel, limits: v2.RequestLimits): void {
  const deadlineMs = nowMs() + limitMsOf(model, limits);
  const refusal = dispatcher.refusal({ model, rows: limits.rows, priority: priorityOf(model, limits), deadlineMs });
  if (refusal) throw refused(model, refusal);
}

/** As soon as the JSON of a request is here. Where nothing waits it is not worth reading twice. */
function refuseEarly(host: Inferring, model: ServedModel, json: Buffer): void {
  if (host.dispatcher.depth.queued > 0 && json.length <= earlyJsonBytesMax) refuseLate(host, model, v2.parseLimits(model, json));
}

function refused({ stats }: ServedModel, { reason, retryAfterMs }: Refusal): HttpError {
  stats.ended.refused += 1;
  return busy(reason === 'FULL' ? 'The queue is full.' : 'The answer would come after the deadline: too much is waiting.', retryAfterMs);
}

type Done = Extract<Answer, { state: 'done' }>;

/** Where the client goes before the answer is there, the request is dropped. */
function submit({ dispatcher }: Inferring, res: ServerResponse, request: Request): Submitted {
  const submitted = dispatcher.submit(request);
  whenOver(res, submitted.drop);
  return submitted;
}

/** The outputs, or a HttpError. */
async function doneOf({ answer: coming }: Submitted, model: ServedModel, res: ServerResponse, arrivedMs: number): Promise<Done> {
  const { stats } = model;
  const answer = await coming;
  switch (answer.state) {
    case 'done':
      return answer;
    case 'refused':
      throw refused(model, answer);
    case 'expired':
      stats.ended.expired += 1;
      throw new HttpError(504, 'The deadline has passed.');
    case 'cancelled':
      if (isOver(res)) stats.ended.cancelled += 1;
      throw new HttpError(499, 'The client has gone.');
    case 'stopped':
      throw new HttpError(503, 'The host is stopping.', { 'retry-after': '1' });
    case 'failed':
      stats.failed(nowMs() - arrivedMs);
      throw new HttpError(500, `The model failed on this input: ${answer.message}`);
  }
}

function headersOf({ config }: ServedModel, { timing }: Done): Record<string, string> {
  const parts = {
    queue: timing.queueMs,
    preprocessing: timing.preprocessingMs,
    compute: timing.computeMs,
    postprocessing: timing.postprocessingMs,
  };
  return {
    'whetstone-revision': String(config.version),
    ...(config.modelVersion ? { 'whetstone-model-version': String(config.modelVersion) } : {}),
    ...(config.lineageHash ? { 'whetstone-lineage-hash': config.lineageHash } : {}),
    'server-timing': Object.entries(parts)
      .map(([part, ms]) => `${part};dur=${ms.toFixed(3)}`)
      .join(', '),
  };
}
