/**
 * Sends what `outbox.ts` has written. Only how a try ended is stored: a delivery whose try the server did not survive is due again, so a
 * receiver gets each at least once, and knows a repetition by its `webhook-id`.
 */
import { createHmac } from 'node:crypto';
import { and, asc, eq, lte, sql } from 'drizzle-orm';
import type { Config } from '../config.ts';
import { type Db, inTransaction, prepared } from '../db.ts';
import { untilWritten } from '../jobs/record.ts';
import type { Log } from '../log.ts';
import { codeVersion } from '../version.ts';
import { addressProblem } from './addresses.ts';
import { enabledWebhooks } from './outbox.ts';
import { type Posted, post } from './post.ts';
import { type Webhook, type WebhookDelivery, webhookDelivery } from './tables.ts';

export interface SenderLimits {
  /** How often it looks by itself. */
  lookMs: number;
  /** Until an answer is there. */
  answerMs: number;
  /** Until the try after the `n`th one that failed. */
  backoffMs: (n: number) => number;
}

/** 5, 20, 80 seconds and so on, up to 3 hours: 13 tries in a day. */
const senderLimits: SenderLimits = { lookMs: 500, answerMs: 10_000, backoffMs: (n) => Math.min(3 * 3600_000, 5000 * 4 ** (n - 1)) };

/** Characters of an answer that are kept. */
const responseMax = 1000;

const dueQuery = prepared((db) =>
  db
    .select()
    .from(webhookDelivery)
    .where(and(eq(webhookDelivery.webhookId, sql.placeholder('webhookId')), lte(webhookDelivery.nextAt, sql.placeholder('now'))))
    .orderBy(asc(webhookDelivery.nextAt), asc(webhookDelivery.id))
    .limit(1)
    .prepare(),
);

/** Sends deliveries when they are due, one at a time to each webhook; returns the function that stops it at once. */
export function startSender(
  { config, db }: { config: Pick<Config, 'webhookAddresses'>; db: Db },
  log: Log,
  limits = senderLimits,
): () => void {
  const problemOf = addressProblem(config.webhookAddresses);
  const inFlight = new Map<string, AbortController>();
  const stopping = new AbortController();

  const look = () => {
    if (stopping.signal.aborted) return;
    try {
      const webhooks = enabledWebhooks(db);
      for (const [id, controller] of inFlight) if (!webhooks.some((one) => one.id === id)) controller.abort();
      for (const one of webhooks) {
        const due = inFlight.has(one.id) ? undefined : dueQuery(db).get({ webhookId: one.id, now: Date.now() });
        if (due) void send(one, due);
      }
    } catch (error) {
      // A locked database passes: the next look tries again.
      log.error({ err: error }, 'reading the deliveries of webhooks failed; retrying');
    }
  };

  const send = async (to: Webhook, delivery: WebhookDelivery) => {
    const controller = new AbortController();
    inFlight.set(to.id, controller);
    const signal = AbortSignal.any([controller.signal, stopping.signal]);
    try {
      const answer = await tryOnce(to, delivery, problemOf, signal, limits.answerMs);
      // Of one that was deleted, disabled or cut off by a stop nothing is known: it stays due.
      if (!signal.aborted) await untilWritten(() => recordTry(db, delivery, answer, limits.backoffMs), signal);
    } catch (error) {
      if (!signal.aborted) log.error({ err: error, webhookId: to.id }, 'the end of a delivery could not be written');
    } finally {
      inFlight.delete(to.id);
      look();
    }
  };

  const timer = setInterval(look, limits.lookMs);
  look();
  return () => {
    clearInterval(timer);
    stopping.abort();
  };
}

type Answer = Posted | { problem: string };

async function tryOnce(
  to: Webhook,
  { id, body }: WebhookDelivery,
  problemOf: (address: string) => string | null,
  signal: AbortSignal,
  answerMs: number,
): Promise<Answer> {
  const timestamp = Math.floor(Date.now() / 1000);
  const bytes = Buffer.from(body);
  const headers = {
    'content-type': 'application/json',
    'content-length': String(bytes.length),
    'user-agent': `Whetstone/${codeVersion}`,
    'webhook-id': id,
    'webhook-timestamp': String(timestamp),
    'webhook-signature': signaturesOf(to, `${id}.${timestamp}.${body}`),
  };
  const late = AbortSignal.timeout(answerMs);
  try {
    return await post(new URL(to.url), headers, bytes, problemOf, AbortSignal.any([signal, late]));
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    return { problem: late.aborted ? `There was no answer within ${answerMs / 1000} s.` : message || String(code) };
  }
}

/**
 * Of the Standard Webhooks specification: the key is what the secret holds in base64. During a rotation there are two: a receiver compares with
 * each.
 */
function signaturesOf({ secret, previousSecret, previousSecretUntil }: Webhook, signed: string): string {
  const secrets = previousSecret !== null && Date.now() < (previousSecretUntil ?? 0) ? [secret, previousSecret] : [secret];
  return secrets
    .map((text) => createHmac('sha256', Buffer.from(text.replace(/^whsec_/, ''), 'base64')))
    .map((hmac) => `v1,${hmac.update(signed).digest('base64')}`)
    .join(' ');
}

function problemIn(answer: Answer): string | null {
  if ('problem' in answer) return answer.problem;
  if (answer.status >= 200 && answer.status < 300) return null;
  return answer.status >= 300 && answer.status < 400
    ? `The answer is a redirect (${answer.status}), which is not followed. Change the URL of the webhook.`
    : `The answer has the status ${answer.status}; 200 to 299 is a delivery.`;
}

function recordTry(db: Db, { id, attempts, triedUntil }: WebhookDelivery, answer: Answer, backoffMs: SenderLimits['backoffMs']): void {
  const now = Date.now();
  const problem = problemIn(answer);
  const nextAt = now + backoffMs(attempts + 1);
  const ended = problem === null || nextAt > triedUntil;
  const { status: httpStatus, text: response } = 'problem' in answer ? { status: null, text: null } : answer;
  inTransaction(db, (tx) =>
    tx
      .update(webhookDelivery)
      .set({
        state: problem === null ? 'DELIVERED' : ended ? 'FAILED' : 'PENDING',
        attempts: attempts + 1,
        nextAt: ended ? null : nextAt,
        endedAt: ended ? now : null,
        httpStatus,
        response: response?.slice(0, responseMax) ?? null,
        problem: problem?.slice(0, responseMax) ?? null,
      })
      .where(eq(webhookDelivery.id, id))
      .run(),
  );
}
