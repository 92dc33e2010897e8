/** One job: its progress, its curves, its result; `l` shows its log. */
import { Box, Text } from 'ink';
import { useMemo, useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData, useLive } from '../session/live.tsx';
import { ChartView } from '../ui/Chart.tsx';
import { age, bar, bytes, clock, duration, number, printable, wrap } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { chartsOf } from './curves.ts';
import { JobLog } from './jobLog.tsx';
import { hasEnded, useJobKeys } from './jobs.tsx';
import { StudyTrials } from './study.tsx';
import { subjectFields, subjectOf } from './subject.ts';

export const JobQuery = graphql(`
  query TuiJob($id: ID!) {
    job(id: $id) {
      id state createdByName createdAt startedAt endedAt queuePosition priority notBefore ${subjectFields}
      failure { code message retryable }
      attempts { number state startedAt endedAt durationMs resumed { epoch } }
      children { id state failure { code message } ${subjectFields} }
      parent { id kind }
      retryOf { id }
      report { id }
      study { id objectives }
      evaluation {
        top1 map5095
        findings {
          labelErrors { count } bestThreshold { score }
          confusedPairs(first: 1) { class predictedClass count }
        }
      }
    }
  }
`);
const EventsSubscription = graphql(`
  subscription TuiJobEvents($id: ID!, $after: SafeInt!) {
    jobEvents(id: $id, after: $after) {
      __typename seq at attempt
      ... on JobStateEvent { state attemptState failure { code message } }
      ... on JobPhaseEvent { phase total }
      ... on JobEpochEvent { epoch epochs step best durationMs metrics { name value } }
      ... on JobArtifactEvent { kind sizeBytes }
      ... on JobGateEvent { gate numbers }
      ... on JobWarningEvent { code message }
    }
  }
`);
const ProgressSubscription = graphql(`
  subscription TuiJobProgress($id: ID!) {
    jobProgress(id: $id) { phase done total epoch epochs itemsPerSecond etaMs metrics { name value } }
  }
`);

type Job = NonNullable<ResultOf<typeof JobQuery>['job']>;
export type JobEvent = ResultOf<typeof EventsSubscription>['jobEvents'];
type Progress = ResultOf<typeof ProgressSubscription>['jobProgress'];

/** Events behind the last one, each once: what comes again after a lost connection is known already. */
export const appended = (before: readonly JobEvent[], items: readonly JobEvent[]): JobEvent[] => {
  const last = before.at(-1)?.seq ?? 0;
  return [...before, ...items.filter(({ seq }) => seq > last)];
};

/** The events of a job since its start, live; none without an id. `onState` is called when its state has changed. */
export function useJobEvents(id: string | null, onState: () => void): JobEvent[] {
  const [events, setEvents] = useState<JobEvent[]>([]);
  useLive(EventsSubscription, id === null ? null : { id, after: 0 }, (items) => {
    setEvents((before) =>
      appended(
        before,
        items.map(({ jobEvents }) => jobEvents),
      ),
    );
    if (items.some(({ jobEvents }) => jobEvents.__typename === 'JobStateEvent')) onState();
  });
  return events;
}

export const epochsOf = (events: readonly JobEvent[]) => events.filter((event) => event.__typename === 'JobEpochEvent');

export function JobScreen({ id }: { id: string }) {
  const { width, height, go } = useFrame();
  const { data, error, again } = useData(JobQuery, { id });
  const events = useJobEvents(id, again);
  const [progress, setProgress] = useState<Progress | null>(null);
  const [chartAt, setChartAt] = useState(0);
  const [log, setLog] = useState(false);
  const [isPaused, setPaused] = useState(false);
  const [shown, setShown] = useState<JobEvent[] | null>(null);
  const [inLog, setInLog] = useState(false);
  const job = data?.job;
  useLive(ProgressSubscription, job && !hasEnded(job) ? { id } : null, (items) => setProgress(items.at(-1)?.jobProgress ?? null));

  const visible = isPaused && shown ? shown : events;
  const epochs = useMemo(() => epochsOf(visible), [visible]);
  const charts = useMemo(() => chartsOf(epochs), [epochs]);
  const step = (by: number) => setChartAt((at) => (at + by + charts.length) % Math.max(1, charts.length));
  const jobKeys = useJobKeys();
  useKeys(
    inLog || !job
      ? []
      : [
          ...jobKeys(job),
          { keys: 'l', label: 'log', hint: true, run: () => setInLog(true) },
          ...(charts.length > 1 ? [{ keys: ['c', 'right'], label: 'next chart', hint: true, run: () => step(1) }] : []),
          ...(charts.length > 1 ? [{ keys: 'left', label: 'previous chart', run: () => step(-1) }] : []),
          ...(charts.length > 0 ? [{ keys: 'y', label: log ? 'linear axis' : 'log axis', hint: true, run: () => setLog(!log) }] : []),
          {
            keys: 'space',
            label: isPaused ? 'resume' : 'pause',
            run: () => {
              setShown(events);
              setPaused(!isPaused);
            },
          },
          ...(job.report ? [{ keys: 'o', label: 'open the report', hint: true, run: () => go('report', job.report?.id ?? '') }] : []),
          ...(job.parent ? [{ keys: 'p', label: 'open the parent', run: () => go('job', job.parent?.id ?? '') }] : []),
        ],
  );
  if (!job)
    return (
      <Text color={theme.muted}>{error ? ' The job cannot be read now.' : data ? ' There is no such job.' : ' Reading the job …'}</Text>
    );
  if (inLog) return <JobLog id={id} width={width} height={height} onClose={() => setInLog(false)} />;

  const head = headOf(job, progress, epochs.length, width);
  const facts = factsOf(job, visible, width);
  const tuned = job.kind === 'TUNE' ? job.study : null;
  if (tuned)
    return (
      <Box flexDirection="column" width={width} height={height}>
        {head
          .filter(({ text }) => text.trim() !== 'No progress yet.')
          .map(({ text, color }) => (
            <Text key={text} color={color} wrap="truncate">
              {text}
            </Text>
          ))}
        <StudyTrials study={tuned} width={width} height={height - head.length} />
      </Box>
    );
  const childrenHeight = job.children.length > 0 ? Math.min(job.children.length + 1, 4) : 0;
  const factsHeight = Math.min(facts.length, height < 14 ? 1 : Math.max(2, Math.floor(height / 4)));
  const chartHeight = charts.length > 0 ? height - head.length - factsHeight - (height < 14 ? 0 : childrenHeight) : 0;
  const twice = width >= 110 && charts.length > 1;
  const factRoom = charts.length > 0 ? factsHeight : height - head.length - childrenHeight;
  return (
    <Box flexDirection="column" width={width} height={height}>
      {head.map(({ text, color }) => (
        <Text key={text} color={color} wrap="truncate">
          {text}
        </Text>
      ))}
      {chartHeight > 2 && (
        <Box>
          {(twice ? [0, 1] : [0]).map((offset) => {
            const chart = charts[(chartAt + offset) % charts.length];
            return (
              chart && (
                <ChartView key={chart.title} chart={chart} width={Math.floor(width / (twice ? 2 : 1))} height={chartHeight} log={log} />
              )
            );
          })}
        </Box>
      )}
      {facts.slice(-Math.max(1, factRoom)).map(({ key, text, color }) => (
        <Text key={key} color={color} wrap="truncate">
          {text}
        </Text>
      ))}
      {childrenHeight > 0 && (height >= 14 || charts.length === 0) && (
        <List
          rows={job.children}
          keyOf={(child) => child.id}
          width={width}
          height={childrenHeight}
          empty=""
          onOpen={{ label: 'open the child', run: (child) => go('job', child.id) }}
          columns={[
            { title: 'Child', width: 14, text: ({ kind }) => kind },
            {
              title: 'State',
              width: 12,
              text: ({ state }) => `${states[state]?.sign ?? ''} ${state}`,
              color: ({ state }) => states[state]?.color,
            },
            { title: '', text: (child) => child.failure?.message ?? subjectOf(child) },
          ]}
        />
      )}
    </Box>
  );
}

interface Line {
  text: string;
  color?: string | undefined;
}

function headOf(job: Job, progress: Progress | null, epochs: number, width: number): Line[] {
  const state = states[job.state];
  const when = job.startedAt
    ? `${duration((job.endedAt ? Date.parse(job.endedAt) : Date.now()) - Date.parse(job.startedAt))}${job.endedAt ? `, ended ${age(job.endedAt)} ago` : ''}`
    : `waits${job.queuePosition ? `, ${job.queuePosition}. in the queue` : ''}`;
  const attempt = job.attempts.length > 1 ? `  attempt ${job.attempts.at(-1)?.number}` : '';
  const first = ` ${state?.sign ?? ''} ${job.state}  ${job.kind}  ${when}${attempt}  ${printable(subjectOf(job))}`;
  const lines: Line[] = [{ text: first, color: state?.color }];
  if (!hasEnded(job) && progress) {
    const { phase, done, total, epoch, itemsPerSecond, etaMs } = progress;
    const share = total ? `${bar(done / total, Math.max(12, Math.floor(width / 4)))} of` : `${done}  `;
    const within = epoch === null ? '' : ` in epoch ${epoch}/${progress.epochs}`;
    lines.push({
      text: ` ${share} ${phase}${within}${itemsPerSecond ? `  ${number(itemsPerSecond)} images/s` : ''}${etaMs === null ? '' : `  ${duration(etaMs)} to the end`}`,
    });
  } else if (!hasEnded(job)) {
    lines.push({ text: epochs > 0 ? ' …' : ' No progress yet.', color: theme.muted });
  }
  if (job.evaluation) lines.push({ text: ` ${printable(evaluationText(job.evaluation))}` });
  if (job.failure) {
    for (const line of wrap(`${job.failure.code}: ${job.failure.message}`, width - 2).slice(0, 4))
      lines.push({ text: ` ${line}`, color: theme.bad });
  }
  return lines;
}

/** What it has measured, and what to look at first; reports show the rest. */
export function evaluationText({ top1, map5095, findings }: NonNullable<Job['evaluation']>): string {
  const [pair] = findings?.confusedPairs ?? [];
  const mistake =
    pair?.class == null
      ? `${pair?.predictedClass} where nothing is`
      : `${pair.class} ${pair.predictedClass === null ? 'missed' : `taken for ${pair.predictedClass}`}`;
  const errors = findings?.labelErrors?.count;
  return [
    top1 === null ? `mAP50-95 ${number(map5095 ?? 0)}` : `top-1 ${number(top1)}`,
    ...(pair ? [`most often ${mistake} (${pair.count})`] : []),
    ...(errors ? [`${errors} likely label ${errors === 1 ? 'error' : 'errors'}`] : []),
    ...(findings?.bestThreshold ? [`best score threshold ${number(findings.bestThreshold.score)}`] : []),
  ].join('; ');
}

/** What happened beside the epochs: attempts, phases, gates, artifacts, warnings. */
function factsOf(job: Job, events: readonly JobEvent[], width: number): (Line & { key: string })[] {
  return events.flatMap((event) =>
    describe(event, job.attempts.length > 1).flatMap(({ text, color }, i) =>
      wrap(text, width - 12).map((line, n) => ({
        key: `${event.seq} ${i} ${n}`,
        text: ` ${i + n === 0 ? clock(event.at) : '        '}  ${line}`,
        color,
      })),
    ),
  );
}

function describe(event: JobEvent, manyAttempts: boolean): Line[] {
  switch (event.__typename) {
    case 'JobStateEvent': {
      if (event.state === 'QUEUED' && !event.attemptState) return [];
      const attempt =
        event.attemptState && (manyAttempts || event.attemptState !== event.state)
          ? `  attempt ${event.attempt} ${event.attemptState}`
          : '';
      return [{ text: `${event.state}${attempt}${event.failure ? `  ${event.failure.code}` : ''}`, color: states[event.state]?.color }];
    }
    case 'JobPhaseEvent':
      return [{ text: `phase ${event.phase}`, color: theme.muted }];
    case 'JobArtifactEvent':
      return [{ text: `made ${event.kind}, ${bytes(event.sizeBytes)}` }];
    case 'JobGateEvent':
      return [{ text: `gate ${event.gate}  ${numbersOf(event.numbers)}`, color: theme.accent }, ...stepsOf(event.numbers)];
    case 'JobWarningEvent':
      return [{ text: `! ${event.code}: ${event.message}`, color: theme.warn }];
    default:
      return [];
  }
}

/** A number inside an object has the name of both: `metric parent`. */
const numbersOf = (numbers: unknown, within = ''): string =>
  Object.entries((numbers ?? {}) as Record<string, unknown>)
    .flatMap(([name, value]) => {
      if (typeof value === 'number') return [`${within}${name} ${number(value)}`];
      return value === null || typeof value !== 'object' || Array.isArray(value) ? [] : [numbersOf(value, `${within}${name} `)];
    })
    .join('  ');

/** Each file that a compression has measured. */
const stepsOf = (numbers: unknown): Line[] =>
  ((numbers as { steps?: { operators: number; recovered?: boolean; metric: number; sizeBytes: number }[] } | null)?.steps ?? []).map(
    ({ operators, recovered, metric, sizeBytes }) => ({
      text: `tried ${bytes(sizeBytes)}${recovered ? ' after fine-tuning' : ''}, ${operators} operators kept in FP32: ${number(metric)}`,
    }),
  );
