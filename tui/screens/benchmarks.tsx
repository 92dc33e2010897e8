/** All benchmarks, newest first; two to four of them beside each other. */
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age } from '../ui/format.ts';
import type { KeyRow } from '../ui/keys.tsx';
import { List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { refreshMs, stateText } from './datasets.tsx';
import { useJobKeys } from './jobs.tsx';

export const BenchmarksQuery = graphql(`
  query TuiBenchmarks {
    jobs(first: 50, filter: { kinds: [BENCHMARK] }) {
      nodes {
        id kind state createdAt createdByName spec
        failure { code retryable }
        modelVersions { number model { name } }
        report { id verdict simple { headline } }
      }
    }
  }
`);

type Row = ResultOf<typeof BenchmarksQuery>['jobs']['nodes'][number];

/** Names of the versions that a benchmark measures, in its order. */
export const versionNames = ({ modelVersions }: { modelVersions: readonly { number: number; model: { name: string } }[] }): string[] =>
  modelVersions.map(({ number, model }) => `${model.name} v${number}`);

const comparedMax = 4;

export function Benchmarks() {
  const { width, height, go } = useFrame();
  const { data } = useData(BenchmarksQuery, {}, refreshMs);
  const jobKeys = useJobKeys();
  const [marked, setMarked] = useState<readonly string[]>([]);
  const toggle = (id: string) =>
    setMarked((before) => (before.includes(id) ? before.filter((one) => one !== id) : [...before, id].slice(-comparedMax)));
  const keys = (job: Row): KeyRow[] => [
    ...(marked.length > 1
      ? [{ keys: 'c', label: `compare ${marked.length}`, hint: true, run: () => go('measurements', marked.join()) }]
      : []),
    ...(job.report
      ? [
          { keys: 'o', label: 'open the report', hint: true, run: () => go('report', job.report?.id ?? '') },
          { keys: 'space', label: marked.includes(job.id) ? 'unmark' : 'mark to compare', hint: true, run: () => toggle(job.id) },
        ]
      : []),
    ...jobKeys(job),
  ];
  return (
    <List
      rows={data?.jobs.nodes ?? []}
      keyOf={({ id }) => id}
      width={width}
      height={height}
      empty={data ? 'There is no benchmark yet: `n` starts one.' : 'Reading …'}
      onOpen={{ label: 'open', run: ({ id }) => go('measurements', id) }}
      keys={keys}
      always={[{ keys: 'n', label: 'new benchmark', does: 'startBenchmark', hint: true, run: () => go('benchmark') }]}
      columns={[
        { title: '', width: 1, text: ({ id }) => (marked.includes(id) ? '*' : ''), color: () => theme.accent },
        {
          title: 'State',
          width: 13,
          text: ({ state, report }) => stateText(report?.verdict ?? state),
          color: ({ state, report }) => states[report?.verdict ?? state]?.color,
        },
        { title: 'Models', width: 22, text: (job) => versionNames(job).join(', ') },
        { title: 'Result', from: 60, text: ({ report, failure }) => report?.simple.headline ?? failure?.code ?? '' },
        { title: 'By', width: 10, from: 90, text: ({ createdByName }) => createdByName ?? '' },
        { title: 'Age', width: 7, from: 50, text: ({ createdAt }) => age(createdAt) },
      ]}
    />
  );
}
