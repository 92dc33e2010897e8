/** The host's thread for large JSON. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { HttpError } from '../httpError.ts';
import { giveWay } from '../priority.ts';
import { makeResponse, parseInfer } from '../v2.ts';
import type { Work, Worked } from './messages.ts';

const port = parentPort as MessagePort;

giveWay();

port.on('message', (work: Work) => {
  try {
    const worked = work.type === 'parse' ? parsed(work) : printed(work);
    port.postMessage(worked, buffersOf(worked));
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    port.postMessage({ type: 'refused', status: error.status, message: error.message } satisfies Worked);
  }
});

function parsed({ model, body, jsonLength }: Extract<Work, { type: 'parse' }>): Worked {
  return { type: 'parsed', request: parseInfer(model, Buffer.from(body.buffer), jsonLength) };
}

function printed({ model, id, wanted, outputs }: Extract<Work, { type: 'print' }>): Worked {
  return { type: 'printed', response: makeResponse(model, id, wanted, outputs) };
}

/** They change hands instead of being copied. */
function buffersOf(worked: Worked): ArrayBuffer[] {
  if (worked.type === 'refused') return [];
  const pieces = worked.type === 'parsed' ? worked.request.feeds.flatMap((feed) => feed.pieces) : worked.response.pieces;
  return [...new Set(pieces.map(({ buffer }) => buffer as ArrayBuffer))];
}
