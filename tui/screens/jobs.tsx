/** All jobs, newest first, live. */
import { useAction } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { useLive, usePages } from '../session/live.tsx';
import { age, duration } from '../ui/format.ts';
import type { KeyRow } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states } from '../ui/theme.ts';
import { runMarks } from './curves.ts';
import { subjectFields, subjectOf } from './subject.ts';

export const JobsQuery = graphql(`
  query TuiJobs($after: String) {
    jobs(first: 100, after: $after) {
      nodes { id state createdByName createdAt startedAt endedAt queuePosition failure { code retryable } ${subjectFields} }
      pageInfo { hasNextPage endCursor }
    }
  }
`);
const JobsSubscription = graphql(`
  subscription TuiJobsLive {
    jobs { id state createdByName createdAt startedAt endedAt queuePosition failure { code retryable } ${subjectFields} }
  }
`);

export type JobRow = ResultOf<typeof JobsSubscription>['jobs'];

export const endStates = ['SUCCEEDED', 'FAILED', 'CANCELLED'];
export const hasEnded = ({ state }: { state: string }): boolean => endStates.includes(state);

/** Newest first. */
export const order = {
  keyOf: ({ id }: JobRow) => id,
  compare: (a: JobRow, b: JobRow) => b.createdAt.localeCompare(a.createdAt),
};

interface KeyedJob {
  id: string;
  kind: string;
  state: string;
  failure: { retryable: boolean } | null;
}

/** The keys that concern one job, on every screen that shows it. */
export function useJobKeys(): (job: KeyedJob) => KeyRow[] {
  const { confirm, say, go } = useFrame();
  const cancelJob = useAction('cancelJob');
  const retryJob = useAction('retryJob');
  const fail = (errors: readonly { message: string }[]) => say(errors.map(({ message }) => message).join(' '), 'bad');
  return ({ id, kind, state, failure }) => {
    if (!hasEnded({ state })) {
      const run = async () => {
        const { errors } = await cancelJob({ input: { jobId: id } });
        if (errors.length > 0) fail(errors);
        else say(`${kind} is being cancelled.`);
      };
      return [
        {
          keys: 'x',
          label: 'cancel',
          does: 'cancelJob',
          hint: true,
          run: () => confirm(`Cancel this ${kind}?`, () => void run()),
        },
      ];
    }
    if (state === 'SUCCEEDED' || failure?.retryable === false) return [];
    const run = async () => {
      const { payload, errors } = await retryJob({ input: { jobId: id } });
      if (errors.length > 0) fail(errors);
      else if (payload?.job) go('job', payload.job.id);
    };
    return [{ keys: 'r', label: 'retry', does: 'retryJob', hint: true, run: () => void run() }];
  };
}

export function Jobs() {
  const { width, height, go, say, marked, mark } = useFrame();
  const { rows: jobs, more, take } = usePages(JobsQuery, { pageOf: ({ jobs }) => jobs, ...order });
  useLive(JobsSubscription, {}, (items) => take(items.map(({ jobs: job }) => job)));
  const keys = useJobKeys();
  return (
    <List
      rows={jobs}
      keyOf={({ id }) => id}
      width={width}
      height={height}
      empty="There are no jobs yet. `:train` starts a training."
      onOpen={{ label: 'open', run: ({ id }) => go('job', id) }}
      onEnd={more}
      keys={(job) => [
        ...keys(job),
        ...(job.kind === 'TRAIN'
          ? [
              {
                keys: ['m', 'space'],
                label: marked.includes(job.id) ? 'unmark' : 'mark to compare',
                hint: true,
                run: () =>
                  marked.length === runMarks.length && !marked.includes(job.id)
                    ? say(`At most ${runMarks.length} runs are compared. Unmark one first.`, 'bad')
                    : mark(job.id),
              },
            ]
          : []),
      ]}
      always={[
        ...(marked.length >= 2
          ? [{ keys: 'c', label: `compare ${marked.length} runs`, hint: true, run: () => go('compare', marked.join(',')) }]
          : []),
        { keys: 'n', label: 'new training', does: 'startTraining', hint: true, run: () => go('train') },
      ]}
      columns={[
        ...(marked.length > 0 ? [{ title: '', width: 1, text: ({ id }: JobRow) => runMarks[marked.indexOf(id)] ?? '' }] : []),
        {
          title: 'State',
          width: 12,
          text: ({ state }) => `${states[state]?.sign ?? ' '} ${state}`,
          color: ({ state }) => states[state]?.color,
        },
        { title: 'Kind', width: 14, text: ({ kind }) => kind },
        { title: 'About', text: (job) => [subjectOf(job), job.failure?.code].filter(Boolean).join('  ') },
        { title: 'By', width: 12, from: 90, text: ({ createdByName }) => createdByName ?? '' },
        { title: 'Age', width: 7, from: 60, text: ({ createdAt }) => age(createdAt) },
        { title: 'Took', width: 12, from: 60, text: tookOf },
      ]}
    />
  );
}

function tookOf({ startedAt, endedAt, queuePosition }: JobRow): string {
  if (queuePosition !== null) return `${queuePosition}. in queue`;
  if (!startedAt) return '';
  return duration((endedAt ? Date.parse(endedAt) : Date.now()) - Date.parse(startedAt));
}
