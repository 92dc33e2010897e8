/**
 * JSON of requests and answers. What is small is read and written at once; what is large on a thread of its own, one after the other: 16 MiB
 * take the better part of a second, during which the thread that answers HTTP would answer nobody.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { HttpError } from '../httpError.ts';
import type { ServedModel } from '../models.ts';
import type { OutputTensor } from '../pool.ts';
import { type InferRequest, type InferResponse, makeResponse, parseInfer, type WantedOutput } from '../v2.ts';
import type { Work, Worked } from './messages.ts';

/** Reading so much of it takes 2 to 4 ms. */
const textBytesMax = 128 * 1024;
/** Bytes of tensors that become text at once; each number has up to 20 digits. */
const tensorBytesMax = 32 * 1024;
/** Of the thread's heap: nested arrays take many times the bytes of their text. What needs more ends the thread, and is refused. */
const heapMegabytes = 1024;

export interface Json {
  /** Throws a HttpError; 499 where nobody waits for it (`gone`) when it is its turn. */
  parse(gone: () => boolean, model: ServedModel, body: Buffer, jsonLength: number | undefined): Promise<InferRequest>;
  print(
    gone: () => boolean,
    model: ServedModel,
    id: string | undefined,
    wanted: WantedOutput[],
    outputs: OutputTensor[],
  ): Promise<InferResponse>;
  close(): Promise<void>;
}

export function startJson(): Json {
  let worker: Worker | null = null;
  let last: Promise<unknown> = Promise.resolve();

  const start = (): Worker => {
    const started = new Worker(join(import.meta.dirname, 'thread.ts'), { resourceLimits: { maxOldGenerationSizeMb: heapMegabytes } });
    // The next piece of work starts another one.
    started.once('exit', () => {
      if (worker === started) worker = null;
    });
    return started;
  };

  /** `make` copies what the thread gets, when it is its turn. */
  async function work(gone: () => boolean, make: () => [Work, ArrayBuffer[]]): Promise<Exclude<Worked, { type: 'refused' }>> {
    const done = last.then((): Promise<Worked> | Worked =>
      gone() ? { type: 'refused', status: 499, message: 'The client has gone.' } : workNow(make),
    );
    last = done.catch(() => {});
    const worked = await done;
    if (worked.type === 'refused') throw new HttpError(worked.status, worked.message);
    return worked;
  }

  async function workNow(make: () => [Work, ArrayBuffer[]]): Promise<Worked> {
    worker ??= start();
    const ending = new AbortController();
    try {
      const [message, transferred] = make();
      worker.postMessage(message, transferred);
      const [worked] = await Promise.race([
        once(worker, 'message', { signal: ending.signal }),
        once(worker, 'exit', { signal: ending.signal }).then(() => Promise.reject(new Error('The thread for JSON has ended.'))),
      ]);
      return worked as Worked;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_WORKER_OUT_OF_MEMORY') throw error;
      return { type: 'refused', status: 413, message: 'The JSON takes too much memory. Send large tensors as binary data.' };
    } finally {
      ending.abort();
    }
  }

  return {
    async parse(gone, model, body, jsonLength) {
      if ((jsonLength ?? body.length) <= textBytesMax) return parseInfer(model, body, jsonLength);
      const { signature, batched } = model;
      const { batchMax } = model.config;
      const worked = await work(gone, () => {
        const copy = new Uint8Array(body);
        return [{ type: 'parse', model: { signature, batched, config: { batchMax } }, body: copy, jsonLength }, [copy.buffer]];
      });
      return (worked as Extract<Worked, { type: 'parsed' }>).request;
    },

    async print(gone, model, id, wanted, outputs) {
      const textual = outputs.filter((_, i) => !wanted[i]?.binary);
      if (textual.reduce((sum, { data }) => sum + data.length, 0) <= tensorBytesMax) return makeResponse(model, id, wanted, outputs);
      const { name, version } = model.config;
      const worked = await work(gone, () => {
        // Others of its batch have their rows in the same memory.
        const own = outputs.map((output) => ({ ...output, data: output.data.slice() }));
        return [{ type: 'print', model: { config: { name, version } }, id, wanted, outputs: own }, own.map(({ data }) => data.buffer)];
      });
      return (worked as Extract<Worked, { type: 'printed' }>).response;
    },

    async close() {
      await last;
      await worker?.terminate();
    },
  };
}
