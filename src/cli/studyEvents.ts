/** What `watch` prints of a study, whose events continue over its retries and extensions. */
import type { ClientSession } from '../../client/upload.ts';
import { ask } from './client.ts';

export const studyEventsQuery = `subscription ($id: ID!, $after: SafeInt!) {
  events: studyEvents(id: $id, after: $after) {
    type: __typename seq at
    ... on StudyStateEvent { state paused failure { code message } job { id study { job { id } } } }
    ... on StudyTrialEvent { number generation }
    ... on StudyTrialEnqueuedEvent { params stopAfterEpoch registers job { id } }
    ... on StudyTrialStartedEvent { attempt job { id } }
    ... on StudyRungEndedEvent { epochs values }
    ... on StudyTrialEndedEvent { params outcome failure { code message } copyOf epochs values }
    ... on StudyRegistrationEndedEvent { state modelVersion { id number model { name } } job { id kind } }
    ... on StudyPromotionEvent { epochs values stopAfterEpoch job { id } }
    ... on StudyGenerationEndedEvent { generation trials }
    ... on StudyFrontEvent { front }
    ... on StudyExtendedEvent { generations trialsWanted }
  }
}`;

interface Failure {
  code: string;
  message: string;
}

interface OfTrial {
  number: number;
  generation: number;
}

interface StudyStateEvent {
  type: 'StudyStateEvent';
  state: string;
  paused: boolean;
  failure: Failure | null;
  job: { id: string; study: { job: { id: string } } | null } | null;
}

export type ShownStudyEvent = { seq: number; at: string } & (
  | StudyStateEvent
  | ({ type: 'StudyTrialEnqueuedEvent' | 'StudyTrialStartedEvent' } & OfTrial)
  | ({
      type: 'StudyTrialEndedEvent';
      outcome: string;
      failure: Failure | null;
      copyOf: number | null;
      values: number[] | null;
    } & OfTrial)
  | ({ type: 'StudyRungEndedEvent' | 'StudyPromotionEvent'; epochs: number; values: number[] | null } & OfTrial)
  | ({
      type: 'StudyRegistrationEndedEvent';
      state: string;
      modelVersion: { number: number; model: { name: string } } | null;
      job: { kind: string } | null;
    } & OfTrial)
  | { type: 'StudyGenerationEndedEvent'; generation: number; trials: number }
  | { type: 'StudyFrontEvent'; front: number[] }
  | { type: 'StudyExtendedEvent'; generations: number; trialsWanted: number }
);

/** The id of the study that is meant: its own, or that of a job which coordinates it; null of other jobs. Throws where there is neither. */
export async function studyIdOf(session: ClientSession, id: string): Promise<string | null> {
  const query = 'query ($id: ID!) { node(id: $id) { type: __typename ... on Study { id } ... on Job { kind study { id } } } }';
  const { node } = (await ask(session, query, { id })) as {
    node: { type: string; id?: string; kind?: string; study?: { id: string } | null } | null;
  };
  if (!node) throw new Error('There is no such job or study: it may have been deleted.');
  if (node.type === 'Study') return node.id ?? null;
  return node.kind === 'TUNE' ? (node.study?.id ?? null) : null;
}

/** The state of a study's job, and whether it has events: they are removed when it has ended for long. Null where there is no such study. */
export async function fetchStudy(session: ClientSession, id: string): Promise<{ state: string; hasEvents: boolean } | null> {
  const query = 'query ($id: ID!) { study(id: $id) { job { state } events(first: 1) { seq } } }';
  const { study } = (await ask(session, query, { id })) as { study: { job: { state: string }; events: unknown[] } | null };
  return study && { state: study.job.state, hasEvents: study.events.length > 0 };
}

export async function readStudy(session: ClientSession, id: string): Promise<{ state: string; hasEvents: boolean }> {
  const study = await fetchStudy(session, id);
  if (!study) throw new Error('There is no such study: it may have been deleted.');
  return study;
}

/** Whether the study is in another job by now: a retry or an extension has continued it. */
export const isContinued = ({ job }: StudyStateEvent): boolean => job !== null && job.study?.job.id !== job.id;

/** Describes the events of one study, each in its turn. */
export function studyDescriber(): (event: ShownStudyEvent) => string[] {
  let jobId: string | undefined;
  return (event) => {
    switch (event.type) {
      case 'StudyStateEvent': {
        const { state, paused, failure, job } = event;
        const where = job && job.id !== jobId ? `, job ${job.id}` : '';
        jobId = job?.id;
        return `${paused && state === 'RUNNING' ? 'PAUSED' : state}${where}${failure ? `  ${failure.code}: ${failure.message}` : ''}`.split(
          '\n',
        );
      }
      case 'StudyTrialEndedEvent': {
        const { outcome, failure, copyOf, values } = event;
        const why = failure ? `${failure.code}: ${failure.message}` : outcome === 'WORST' ? 'cancelled' : numbersOf(values);
        return `${trialOf(event)}  ${outcome}${copyOf === null ? '' : ` (copy of ${copyOf})`}  ${why}`.trimEnd().split('\n');
      }
      case 'StudyRungEndedEvent':
        return [`${trialOf(event)}  waits after epoch ${event.epochs}  ${numbersOf(event.values)}`.trimEnd()];
      case 'StudyRegistrationEndedEvent': {
        const { state, modelVersion: version, job } = event;
        const made = version ? `: version ${version.number} of ${version.model.name}` : '';
        return [`${trialOf(event)}  ${job?.kind ?? 'its registration'} ${state}${made}`];
      }
      case 'StudyPromotionEvent':
        return [`${trialOf(event)}  continues after epoch ${event.epochs}  ${numbersOf(event.values)}`.trimEnd()];
      case 'StudyGenerationEndedEvent':
        return [`generation ${event.generation} has ended, ${event.trials} trials so far`];
      case 'StudyFrontEvent':
        return [`best of those that have ended: trial ${event.front.join(', ')}`];
      case 'StudyExtendedEvent': {
        const { generations, trialsWanted } = event;
        return [`extended by ${generations} ${generations === 1 ? 'generation' : 'generations'}, to ${trialsWanted} trials`];
      }
      // What waits and starts is for programs. A newer server may have other events.
      default:
        return [];
    }
  };
}

const trialOf = ({ number, generation }: OfTrial): string => `trial ${number}, generation ${generation}`;

const numbersOf = (values: number[] | null): string => values?.map((value) => Number(value.toPrecision(4))).join('  ') ?? '';
