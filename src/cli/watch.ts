import { setTimeout } from 'node:timers/promises';
import { type Client, createClient } from 'graphql-ws';
import type { ClientSession } from '../../client/upload.ts';
import { ask, withoutControls } from './client.ts';
import { fetchStudy, isContinued, readStudy, type ShownStudyEvent, studyDescriber, studyEventsQuery, studyIdOf } from './studyEvents.ts';

/** A lost connection is tried again after this long, until it is there again. */
const reconnectMs = 1000;

interface Metric {
  name: string;
  value: number;
}

type JobEvent = { seq: number; at: string; attempt: number } & (
  | { type: 'JobStateEvent'; state: string; attemptState: string | null; failure: { code: string; message: string } | null }
  | { type: 'JobPhaseEvent'; phase: string; total: number | null }
  | { type: 'JobEpochEvent'; epoch: number; epochs: number; best: boolean; durationMs: number; metrics: Metric[] }
  | { type: 'JobCheckpointEvent' }
  | { type: 'JobArtifactEvent'; kind: string; sizeBytes: number }
  | { type: 'JobGateEvent'; gate: string; numbers: Record<string, unknown> }
  | { type: 'JobWarningEvent'; code: string; message: string }
);

interface Progress {
  phase: string;
  done: number;
  total: number | null;
  epoch: number | null;
  epochs: number | null;
  itemsPerSecond: number | null;
  etaMs: number | null;
  metrics: Metric[];
}

const eventsQuery = `subscription ($id: ID!, $after: SafeInt!) {
  events: jobEvents(id: $id, after: $after) {
    type: __typename seq at attempt
    ... on JobStateEvent { state attemptState failure { code message } }
    ... on JobPhaseEvent { phase total }
    ... on JobEpochEvent { epoch epochs best durationMs metrics { name value } }
    ... on JobArtifactEvent { kind sizeBytes }
    ... on JobGateEvent { gate numbers }
    ... on JobWarningEvent { code message }
  }
}`;
const progressQuery = `subscription ($id: ID!) {
  jobProgress(id: $id) { phase done total epoch epochs itemsPerSecond etaMs metrics { name value } }
}`;

/**
 * Prints the events of a job until it ends and what it has measured, then those of its children, such as a training's conversion. Of a study,
 * or of a job that coordinates one, it prints the events of the study, over its retries and extensions so far. On a
 * terminal the progress stands below them; with `asJson` each event is a line of JSON, and nothing else is printed. True when all have
 * succeeded. After a lost connection it resumes behind the last event. Throws when there is no such job, or this user may not read it.
 */
export async function watchJob(session: ClientSession, id: string, output: NodeJS.WriteStream, asJson = false): Promise<boolean> {
  const screen = createScreen(output, asJson);
  const studyId = await studyIdOf(session, id);
  if (studyId !== null) return watchStudy(session, studyId, screen);
  let succeeded = await watchOne(session, id, screen);
  const { children, evaluation, report } = await readJob(session, id);
  if (succeeded && evaluation) screen.fact({ jobId: id, evaluation }, [describeEvaluation(evaluation)]);
  if (succeeded && report) screen.fact({ jobId: id, report }, [`result: ${report.simple.headline} ${report.simple.points[0] ?? ''}`]);
  for (const child of children.filter(({ state }) => !endStates.includes(state))) {
    succeeded = (await watchJob(session, child.id, output, asJson)) && succeeded;
  }
  return succeeded;
}

const endStates = ['SUCCEEDED', 'FAILED', 'CANCELLED'];

interface WatchedJob {
  kind: string;
  state: string;
  children: { id: string; state: string }[];
  evaluation: Evaluation | null;
  /** Of a benchmark. */
  report: { simple: { headline: string; points: string[] } } | null;
}

interface Evaluation {
  images: number;
  split: string;
  top1: number | null;
  map5095: number | null;
  datasetVersion: { number: number; dataset: { name: string } } | null;
}

function describeEvaluation({ images, split, top1, map5095, datasetVersion }: Evaluation): string {
  const accuracy = top1 === null ? `mAP50-95 ${map5095?.toFixed(4)}` : `top-1 ${(100 * top1).toFixed(2)} %`;
  const of = datasetVersion ? ` of dataset ${datasetVersion.dataset.name} version ${datasetVersion.number}` : '';
  return `result: ${accuracy} on ${images} images${of}, split ${split}`;
}

async function fetchJob(session: ClientSession, id: string): Promise<WatchedJob | null> {
  const query =
    'query ($id: ID!) { job(id: $id) { kind state children { id state } report { simple { headline points } } evaluation { images split top1 map5095 datasetVersion { number dataset { name } } } } }';
  const { job } = (await ask(session, query, { id })) as { job: WatchedJob | null };
  return job;
}

async function readJob(session: ClientSession, id: string): Promise<WatchedJob> {
  const job = await fetchJob(session, id);
  if (!job) throw new Error('There is no such job: it may have been deleted.');
  return job;
}

async function watchOne(session: ClientSession, id: string, screen: Screen): Promise<boolean> {
  const job = await readJob(session, id);
  screen.line(`Job ${id}: ${job.kind}`);
  let phase = '';
  return followEvents<JobEvent>(session, screen, {
    id,
    query: eventsQuery,
    hasProgress: true,
    take(event) {
      // A benchmark measures in rounds: each is a phase.
      const isRepeated = event.type === 'JobPhaseEvent' && event.phase === phase;
      if (event.type === 'JobPhaseEvent') ({ phase } = event);
      const words = isRepeated ? [] : describe(event).map((text) => `${timeOf(event.at)}  ${text}`);
      screen.fact({ jobId: id, ...event }, words);
      return event.type === 'JobStateEvent' && endStates.includes(event.state) ? event.state === 'SUCCEEDED' : null;
    },
    async whenOver() {
      const found = await fetchJob(session, id);
      if (!found) throw new Error('The job was deleted.');
      return withoutEvents(screen, { jobId: id, state: found.state });
    },
  });
}

async function watchStudy(session: ClientSession, id: string, screen: Screen): Promise<boolean> {
  const { state, hasEvents } = await readStudy(session, id);
  screen.line(`Study ${id}`);
  const ended = hasEvents ? null : withoutEvents(screen, { studyId: id, state });
  if (ended !== null) return ended;
  const words = studyDescriber();
  return followEvents<ShownStudyEvent>(session, screen, {
    id,
    query: studyEventsQuery,
    hasProgress: false,
    take(event) {
      screen.fact(
        { studyId: id, ...event },
        words(event).map((text) => `${timeOf(event.at)}  ${text}`),
      );
      const isEnd = event.type === 'StudyStateEvent' && endStates.includes(event.state) && !isContinued(event);
      return isEnd ? event.state === 'SUCCEEDED' : null;
    },
    async whenOver() {
      const found = await fetchStudy(session, id);
      if (!found) throw new Error('The study was deleted.');
      return withoutEvents(screen, { studyId: id, state: found.state });
    },
  });
}

/** Of what has ended so long ago that its events are gone: whether it was a success. Null where it has not ended. */
function withoutEvents(screen: Screen, facts: { state: string; jobId?: string; studyId?: string }): boolean | null {
  if (!endStates.includes(facts.state)) return null;
  screen.fact(facts, [`${facts.state}. Its events have been removed.`]);
  return facts.state === 'SUCCEEDED';
}

interface Followed<Event> {
  id: string;
  query: string;
  hasProgress: boolean;
  /** Prints an event. Whether it was a success where it is the last one, otherwise null. */
  take(event: Event): boolean | null;
  /** Called when the server has no more events, though none was the last one. As `take`; throws where it was deleted. */
  whenOver(): Promise<boolean | null>;
}

async function followEvents<Event extends { seq: number }>(
  session: ClientSession,
  screen: Screen,
  { id, query, hasProgress, take, whenOver }: Followed<Event>,
): Promise<boolean> {
  let refusedBefore = false;
  for (let after = 0; ; ) {
    let [connected, tokenEnded, isOver] = [false, false, true];
    const client = createClient({
      url: `${session.url.replace(/^http/, 'ws')}/graphql`,
      connectionParams: async () => ({ authorization: `Bearer ${await session.accessToken()}` }),
      retryAttempts: 0,
      on: {
        connected() {
          connected = true;
        },
      },
    });
    try {
      if (screen.hasProgress && hasProgress) showProgress(client, id, screen);
      for await (const { data, errors } of client.iterate<{ events: Event }>({ query, variables: { id, after } })) {
        // The server stops, or the token has expired.
        isOver = !errors && Boolean(data);
        if (errors || !data) break;
        after = data.events.seq;
        const end = take(data.events);
        if (end !== null) return end;
      }
    } catch (error) {
      // GraphQL's errors come as a list, the end of the connection as what closed it.
      const refused = Array.isArray(error) ? error[0] : null;
      isOver = false;
      if (refused && !refused.extensions?.retryable) throw new Error(refused.message);
      tokenEnded = (error as CloseEvent).code === 4403;
      if (!connected && tokenEnded) {
        throw new Error(
          'The access token has expired; the job is not affected. Log in again, set WHETSTONE_TOKEN and repeat the command. Without ' +
            'WHETSTONE_TOKEN the command asks for your name and password, and then follows a job for as long as it takes.',
        );
      }
    } finally {
      screen.progress('');
      await client.dispose();
    }
    if (isOver && (await answers(session.url))) {
      const end = await whenOver();
      if (end !== null) return end;
    } else if (connected && !tokenEnded) screen.line('The connection is lost. Trying again.');
    // A server that is not there comes back. One that answers, but not over WebSocket, may never.
    const refused = !connected && (await answers(session.url));
    if (refused && !refusedBefore) screen.line(refusal(session.url));
    refusedBefore = refused;
    await setTimeout(reconnectMs);
  }
}

const answers = (url: string): Promise<boolean> =>
  fetch(`${url}/health`).then(
    ({ ok }) => ok,
    () => false,
  );

const refusal = (url: string): string =>
  `The server answers, but the WebSocket connection to ${url.replace(/^http/, 'ws')}/graphql was refused. A proxy in between must pass on ` +
  'upgrades to WebSocket; a server that carries too many connections takes this one later. Trying again.';

function showProgress(client: Client, id: string, screen: Screen): void {
  client.subscribe<{ jobProgress: Progress }>(
    { query: progressQuery, variables: { id } },
    {
      next: ({ data }) => data && screen.progress(describeProgress(data.jobProgress)),
      // The events say what became of the connection.
      error: () => {},
      complete: () => {},
    },
  );
}

interface Screen {
  /** A remark for a person. */
  line(text: string): void;
  /** What a program reads, or the same in lines for a person. */
  fact(value: object, words: readonly string[]): void;
  hasProgress: boolean;
  /** The line below all others; empty: none. */
  progress(text: string): void;
}

function createScreen(output: NodeJS.WriteStream, asJson: boolean): Screen {
  if (asJson) {
    return { line() {}, fact: (value) => output.write(`${JSON.stringify(value)}\n`), hasProgress: false, progress() {} };
  }
  let shown = '';
  const clear = () => shown && output.write('\r\x1b[K');
  const draw = () => shown && output.write(shown);
  const line = (text: string) => {
    clear();
    output.write(`${withoutControls(text)}\n`);
    draw();
  };
  return {
    line,
    fact: (_value, words) => words.forEach(line),
    hasProgress: output.isTTY,
    progress(text) {
      clear();
      shown = withoutControls(text).slice(0, (output.columns ?? 80) - 1);
      draw();
    },
  };
}

function describe(event: JobEvent): string[] {
  switch (event.type) {
    case 'JobStateEvent': {
      const { state, attempt, attemptState, failure } = event;
      const why = failure ? `  ${failure.code}: ${failure.message}` : '';
      // A job that only coordinates others has no attempts.
      if (state === 'RUNNING') return [attempt === 0 ? state : `RUNNING, attempt ${attempt}`];
      if (state === 'QUEUED' && attemptState) return [`attempt ${attempt} ${attemptState}${why}`, 'QUEUED again'];
      return `${state}${why}`.split('\n');
    }
    case 'JobPhaseEvent':
      return [`phase ${event.phase}`];
    case 'JobEpochEvent': {
      const { epoch, epochs, best, durationMs, metrics } = event;
      return [`epoch ${epoch}/${epochs}  ${describeMetrics(metrics)}  ${(durationMs / 1000).toFixed(1)} s${best ? '  best' : ''}`];
    }
    case 'JobArtifactEvent':
      return [`made ${event.kind}, ${(event.sizeBytes / 2 ** 20).toFixed(1)} MiB`];
    case 'JobGateEvent': {
      const numbers = Object.entries(event.numbers).flatMap(([name, value]) => (typeof value === 'number' ? { name, value } : []));
      return [`gate ${event.gate}  ${describeMetrics(numbers)}`];
    }
    case 'JobWarningEvent':
      return [`warning ${event.code}: ${event.message}`];
    // A newer server may have other events.
    default:
      return [];
  }
}

function describeProgress({ phase, done, total, epoch, epochs, itemsPerSecond, etaMs, metrics }: Progress): string {
  const width = 20;
  const bar = total ? `[${'#'.repeat(Math.round((width * done) / total)).padEnd(width, '.')}] ` : '';
  const parts = [
    `${bar}${epoch === null ? '' : `epoch ${epoch}/${epochs}, `}${phase} ${total === null ? done : `${done}/${total}`}`,
    itemsPerSecond === null ? '' : `${itemsPerSecond.toFixed(1)}/s`,
    etaMs === null ? '' : `${Math.round(etaMs / 1000)} s left`,
    describeMetrics(metrics),
  ];
  return parts.filter(Boolean).join('  ');
}

const describeMetrics = (metrics: Metric[]): string =>
  metrics.map(({ name, value }) => `${name} ${Number(value.toPrecision(4))}`).join('  ');

const timeOf = (at: string): string => new Date(at).toTimeString().slice(0, 8);
