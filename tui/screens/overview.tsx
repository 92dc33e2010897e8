/** What the machine does, what waits, and what somebody should look at. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData, useLive } from '../session/live.tsx';
import { age, bar, bytes, number, padTo, printable } from '../ui/format.ts';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { sparkline } from '../ui/plot.ts';
import { type SystemNow, useSystemHistory } from '../ui/system.ts';
import { states, theme } from '../ui/theme.ts';
import { subjectOf } from './subject.ts';

export const OverviewQuery = graphql(`
  query TuiOverview {
    inferenceHealth { state url restarts reason }
    alerts { state since says }
    jobs(first: 3, filter: { states: [FAILED] }) { nodes { id kind endedAt failure { code message } } }
    regressions(first: 3) { nodes { at says } }
    system { version queuedJobs runningJobs slots { n job { id kind state } } disk { freeBytes totalBytes } }
  }
`);

const InferenceSubscription = graphql(`
  subscription TuiInference {
    inferenceStats(intervalMs: 1000) {
      queuedRequests
      dispatchedRuns
      deployments { name revision answered refused expired failed queueMs computeMs }
    }
  }
`);

type Stats = ResultOf<typeof InferenceSubscription>['inferenceStats'];

interface Reading {
  at: number;
  stats: Stats;
}

/** Requests a second between the first and the last reading of a deployment. */
export function rateOf(name: string, revision: number, readings: readonly Reading[]): number | null {
  const [before, now] = [readings[0], readings.at(-1)];
  const find = (reading: Reading | undefined) => reading?.stats.deployments.find((d) => d.name === name && d.revision === revision);
  const [first, last] = [find(before), find(now)];
  if (!before || !now || !first || !last || now.at <= before.at) return null;
  return Math.max(0, ((last.answered - first.answered) * 1000) / (now.at - before.at));
}

export function Overview() {
  const { width, height, go } = useFrame();
  const history = useSystemHistory();
  const [readings, setReadings] = useState<Reading[]>([]);
  useLive(InferenceSubscription, {}, (items) => {
    const added = items.map(({ inferenceStats }) => ({ at: Date.now(), stats: inferenceStats }));
    setReadings((before) => [...before, ...added].slice(-6));
  });
  const { data } = useData(OverviewQuery, {}, 10_000);
  const system = history.at(-1);
  if (!system) return <Text color={theme.muted}> Reading the machine …</Text>;

  const slots = [...system.slots];
  const slotsHeight = Math.min(slots.length + 1, Math.max(3, Math.floor(height / 3)));
  const machine = machineLines(history, width);
  const attention = attentionOf(system, data);
  const deployments = readings.at(-1)?.stats.deployments ?? [];
  const left = height - slotsHeight - machine.length;
  const attentionLines = attention.slice(0, Math.max(1, Math.min(attention.length, left - 2)));
  const room = left - attentionLines.length - (left > 6 ? 3 : 1);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <List
        rows={slots}
        columns={[
          { title: 'Slot', width: 4, text: ({ n }) => String(n) },
          {
            title: 'Job',
            width: 16,
            text: ({ job }) => (job ? `${states[job.state]?.sign ?? ''} ${job.kind}` : 'free'),
            color: ({ job }) => (job ? theme.accent : theme.muted),
          },
          { title: 'About', text: ({ job }) => (job ? subjectOf(job) : '') },
          { title: 'By', width: 12, from: 60, text: ({ job }) => job?.createdByName ?? '' },
          { title: 'Since', width: 10, text: ({ job }) => (job ? age(job.startedAt) : '') },
        ]}
        keyOf={({ n }) => String(n)}
        width={width}
        height={slotsHeight}
        empty="There is no slot."
        onOpen={{ label: 'open the job', run: ({ job }) => job && go('job', job.id) }}
      />
      {left > 6 && <Text> </Text>}
      {machine.map((line) => (
        <Text key={line} wrap="truncate">
          {line}
        </Text>
      ))}
      {left > 6 && <Text> </Text>}
      {attentionLines.map(({ text, color }) => (
        <Text key={text} color={color} wrap="truncate">{` ${printable(text)}`}</Text>
      ))}
      {room > 1 && (
        <Text color={theme.muted} wrap="truncate">
          {deploymentLine(['Deployment', 'requests/s', 'queue ms', 'compute ms', 'refused', 'failed'])}
        </Text>
      )}
      {room > 1 && deployments.length === 0 && <Text color={theme.muted}> Nothing is deployed.</Text>}
      {deployments.slice(0, Math.max(0, room - 1)).map((d) => (
        <Text key={`${d.name} ${d.revision}`} wrap="truncate">
          {deploymentLine([
            `${d.name} r${d.revision}`,
            number(rateOf(d.name, d.revision, readings)),
            number(d.queueMs),
            number(d.computeMs),
            String(d.refused),
            String(d.failed),
          ])}
        </Text>
      ))}
    </Box>
  );
}

const deploymentLine = ([name = '', ...numbers]: string[]): string =>
  ` ${padTo(name, 22)}${numbers.map((text) => padTo(text, 11, 'right')).join('')}`;

function machineLines(history: SystemNow[], width: number): string[] {
  const system = history.at(-1) as SystemNow;
  const barWidth = Math.max(12, Math.min(30, Math.floor(width / 3)));
  const sparkWidth = Math.max(0, Math.min(30, width - barWidth - 36));
  const line = (name: string, share: number, about: string, past: number[], most: number) =>
    ` ${padTo(name, 7)} ${bar(share, barWidth)}  ${padTo(about, 22)} ${sparkline(past, sparkWidth, most)}`;
  const used = ({ totalBytes, freeBytes }: { totalBytes: number; freeBytes: number }) => totalBytes - freeBytes;
  const { cpu, memory, disk } = system;
  const gpus = (system.gpus ?? []).map((gpu) =>
    line(
      `GPU ${gpu.index}`,
      (gpu.utilizationPercent ?? 0) / 100,
      `${bytes(gpu.memoryUsedBytes)} ${gpu.temperatureCelsius ?? '–'} °C`,
      [],
      1,
    ),
  );
  return [
    line(
      'CPU',
      cpu.utilizationPercent / 100,
      `${cpu.cores} cores, load ${cpu.loadAverage1m.toFixed(1)}`,
      history.map((s) => s.cpu.utilizationPercent),
      100,
    ),
    line(
      'Memory',
      used(memory) / memory.totalBytes,
      `${bytes(memory.freeBytes)} free`,
      history.map((s) => used(s.memory)),
      memory.totalBytes,
    ),
    line('Disk', used(disk) / disk.totalBytes, `${bytes(disk.freeBytes)} free`, [], 1),
    ...gpus,
  ];
}

function attentionOf(system: SystemNow, data: ResultOf<typeof OverviewQuery> | undefined): { text: string; color: string | undefined }[] {
  const health = data?.inferenceHealth;
  const bad = health && !['READY', 'IDLE', 'STARTING'].includes(health.state);
  const isRecent = (at: string | null) => at !== null && Date.now() - Date.parse(at) < 86_400_000;
  const failed = (data?.jobs.nodes ?? []).filter(({ endedAt }) => isRecent(endedAt));
  const worse = (data?.regressions.nodes ?? []).filter(({ at }) => isRecent(at));
  return [
    ...(data?.alerts ?? []).map(({ state, since, says }) => ({
      text: `! ${state === 'FIRING' ? 'Alert' : 'Pending alert'} for ${age(since)}: ${says}`,
      color: state === 'FIRING' ? theme.bad : theme.warn,
    })),
    ...(bad ? [{ text: `! Inference host: ${health.state}. ${health.reason ?? ''}`, color: theme.bad }] : []),
    ...failed.map(({ kind, endedAt, failure }) => ({
      text: `✗ ${kind} failed ${age(endedAt)} ago: ${failure?.code ?? ''} ${failure?.message ?? ''}`,
      color: theme.bad,
    })),
    ...worse.map(({ at, says }) => ({ text: `! ${age(at)} ago: ${says}`, color: theme.warn })),
    ...(health && !bad ? [{ text: `✓ Inference host ${health.state}${health.url ? ` at ${health.url}` : ''}`, color: theme.good }] : []),
    ...(system.gpusReason ? [{ text: `· No GPU: ${system.gpusReason}`, color: theme.muted }] : []),
  ];
}
