/** Reports of benchmarks, and one in its simple and its technical view. */
import { writeFileSync } from 'node:fs';
import { Box, Text } from 'ink';
import { useState } from 'react';
import { useClient } from 'urql';
import { reasonOf } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { useConnection, useData } from '../session/live.tsx';
import { pathOf } from '../session/localFiles.ts';
import { Form } from '../ui/Form.tsx';
import { age, milliseconds, number, padTo, printable, threadsText, wrap } from '../ui/format.ts';
import { useKeys } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { stateText } from './datasets.tsx';

export const ReportsQuery = graphql(`
  query TuiReports {
    reports(first: 50) { nodes { id createdAt verdict simple { headline } job { createdByName } } }
  }
`);

export const ReportQuery = graphql(`
  query TuiReport($id: ID!) {
    report(id: $id) {
      createdAt verdict sha256 regressions { says }
      simple { headline points }
      technical {
        measuredAt codeVersion profile target
        machine { processor cores memoryBytes platform }
        models { name number precision sizeBytes accuracy { metric value } }
        choice { n says confidence }
        rows {
          n model verdict engine engineVersion batchSize intraOpThreads instances precision itemsPerSecond sampleCount
          latency { meanNs percentiles { percent ns lowNs highNs } }
          reasons { code message }
        }
      }
    }
  }
`);

const ExportQuery = graphql(`
  query TuiExport($id: ID!, $format: ReportFormat!) {
    report(id: $id) { export(format: $format) { fileName content url } }
  }
`);

type Report = NonNullable<ResultOf<typeof ReportQuery>['report']>;

export function Reports() {
  const { width, height, go } = useFrame();
  const { data } = useData(ReportsQuery, {}, 10_000);
  return (
    <List
      rows={data?.reports.nodes ?? []}
      keyOf={({ id }) => id}
      width={width}
      height={height}
      empty={data ? 'There is no report yet: a benchmark makes one.' : 'Reading …'}
      onOpen={{ label: 'open', run: ({ id }) => go('report', id) }}
      columns={[
        { title: 'Verdict', width: 13, text: ({ verdict }) => stateText(verdict), color: ({ verdict }) => states[verdict]?.color },
        { title: 'Result', text: ({ simple }) => simple.headline },
        { title: 'By', width: 10, from: 80, text: ({ job }) => job.createdByName ?? '' },
        { title: 'Age', width: 7, from: 60, text: ({ createdAt }) => age(createdAt) },
      ]}
    />
  );
}

export function ReportScreen({ id }: { id: string }) {
  const { width, height, say, copy } = useFrame();
  const client = useClient();
  const { session } = useConnection();
  const { data } = useData(ReportQuery, { id });
  const [technical, setTechnical] = useState(false);
  const [exporting, setExporting] = useState(false);
  const [top, setTop] = useState(0);
  const report = data?.report;
  const lines = !report ? [] : technical ? technicalLines(report, width) : simpleLines(report, width);
  const most = Math.max(0, lines.length - height);
  /** Of the HTML, which a browser opens without a token while the link lives. */
  const copyLink = async () => {
    const answer = await client.query(ExportQuery, { id, format: 'HTML' }).toPromise();
    const made = answer.data?.report?.export;
    if (made) copy('The link', new URL(made.url, session.url).href);
    else say(answer.error ? reasonOf(answer.error) : 'There is no such report.', 'bad');
  };
  useKeys(
    exporting || !report
      ? []
      : [
          { keys: 'v', label: technical ? 'simple view' : 'technical view', hint: true, run: () => setTechnical(!technical) },
          { keys: 'e', label: 'export', hint: true, run: () => setExporting(true) },
          { keys: 'o', label: 'copy link', hint: true, run: () => void copyLink() },
          { keys: ['j', 'down'], label: 'further', hint: top < most, run: () => setTop(Math.min(most, top + 1)) },
          { keys: ['k', 'up'], label: 'back', run: () => setTop(Math.max(0, top - 1)) },
          { keys: ['ctrl-d', 'pagedown'], label: 'half a page down', run: () => setTop(Math.min(most, top + Math.ceil(height / 2))) },
          { keys: ['ctrl-u', 'pageup'], label: 'half a page up', run: () => setTop(Math.max(0, top - Math.ceil(height / 2))) },
          { keys: ['g', 'home'], label: 'beginning', run: () => setTop(0) },
          { keys: ['G', 'end'], label: 'end', run: () => setTop(most) },
        ],
  );
  if (!report) return <Text color={theme.muted}>{data ? ' There is no such report.' : ' Reading …'}</Text>;
  if (exporting) {
    const save = async ({ format, path }: Record<string, unknown>) => {
      const answer = await client.query(ExportQuery, { id, format: format as 'JSON' }).toPromise();
      const made = answer.data?.report?.export;
      if (!made) return [{ field: null, message: answer.error ? reasonOf(answer.error) : 'There is no such report.' }];
      const file = pathOf(path ? String(path) : made.fileName);
      try {
        // Not over a file that is there: it may be another report.
        writeFileSync(file, made.content, { flag: 'wx' });
      } catch (error) {
        return [{ field: ['path'], message: (error as Error).message }];
      }
      setExporting(false);
      say(`Written to ${file}.`);
      return [];
    };
    const formats = ['MARKDOWN', 'HTML', 'CSV', 'JSON'].map((value) => ({ value, label: value }));
    const about = 'A file that is not there yet; without one, the name of the report in this folder.';
    return (
      <Form
        title="Export the report"
        submitLabel="write the file"
        width={width}
        height={height}
        fields={[
          { name: 'format', label: 'Format', description: '', kind: 'choice', required: true, initial: 'MARKDOWN', options: formats },
          { name: 'path', label: 'File', description: about, kind: 'text', required: false, initial: '' },
        ]}
        submit={save}
        onCancel={() => setExporting(false)}
      />
    );
  }
  return (
    <Box flexDirection="column" width={width} height={height}>
      {lines.slice(top, top + height).map(({ text, color, bold }, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: lines of a text.
        <Text key={i} color={color} bold={bold ?? false} wrap="truncate">{` ${text}`}</Text>
      ))}
    </Box>
  );
}

interface Line {
  text: string;
  color?: string | undefined;
  bold?: boolean;
}

const simpleLines = ({ verdict, simple, createdAt, sha256, regressions }: Report, width: number): Line[] => [
  { text: `${stateText(verdict)}  ${age(createdAt)} ago`, color: states[verdict]?.color },
  { text: '' },
  ...wrap(simple.headline, width - 2).map((text) => ({ text, bold: true })),
  { text: '' },
  ...simple.points.flatMap((point) => wrap(`• ${point}`, width - 2).map((text, i) => ({ text: i === 0 ? text : `  ${text}` }))),
  ...regressions.flatMap(({ says }) => wrap(`! ${says}`, width - 2).map((text) => ({ text, color: theme.warn }))),
  { text: '' },
  { text: `SHA-256 ${sha256}`, color: theme.muted },
];

/** Rows with their P50, P95 and P99, each as a bar on one scale, with its interval. */
function technicalLines({ technical }: Report, width: number): Line[] {
  const { machine, models, rows, choice, profile, target, codeVersion } = technical;
  const percentiles = rows.flatMap(({ latency }) => latency?.percentiles ?? []);
  const longest = Math.max(1, ...percentiles.map(({ ns }) => ns ?? 0));
  const barWidth = Math.max(4, width - 52);
  return [
    {
      text: `${printable(machine.processor)}, ${machine.cores} cores, ${machine.platform}; ${profile}, by ${target}; Whetstone ${codeVersion}`,
      color: theme.muted,
    },
    ...models.map(({ name, number: version, precision, accuracy }, i) => ({
      text: `model ${i}: ${printable(name)} v${version} ${precision}${accuracy ? `, ${accuracy.metric} ${number(accuracy.value)}` : ''}`,
    })),
    ...rows.flatMap((row): Line[] => [
      { text: '' },
      {
        text: `${row.n === choice.n ? '★' : ' '} row ${row.n}: ${row.engine}, model ${row.model}, batch ${row.batchSize}, ${threadsText(row)} threads  ${stateText(row.verdict)}  ${number(row.itemsPerSecond)} images/s`,
        color: states[row.verdict]?.color,
        bold: row.n === choice.n,
      },
      ...(row.latency?.percentiles ?? []).map(({ percent, ns, lowNs, highNs }) => ({
        text: `   P${padTo(String(percent), 4)} ${padTo(milliseconds(ns), 10, 'right')} ${padTo(lowNs === null ? '' : `(${milliseconds(lowNs)} to ${milliseconds(highNs)})`, 26)} ${'█'.repeat(Math.round(((ns ?? 0) / longest) * barWidth))}`,
      })),
      ...row.reasons.flatMap(({ code, message }) =>
        wrap(`${code}: ${message}`, width - 6).map((text) => ({ text: `   ${text}`, color: theme.warn })),
      ),
    ]),
    { text: '' },
    ...wrap(`${choice.says}${choice.confidence ? ` Confidence: ${choice.confidence}.` : ''}`, width - 2).map((text) => ({
      text,
      bold: true,
    })),
  ];
}
