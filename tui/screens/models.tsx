/** Models, and one with its versions. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useConnection, useData } from '../session/live.tsx';
import { age, bytes, number, printable } from '../ui/format.ts';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { states, theme } from '../ui/theme.ts';
import { refreshMs, stateText } from './datasets.tsx';
import { PackageForm } from './package.tsx';

export const ModelsQuery = graphql(`
  query TuiModels {
    models(first: 100) {
      nodes { name task createdByName version { id number state format precision sizeBytes } aliases { name version { number } } }
    }
  }
`);

export const ModelQuery = graphql(`
  query TuiModel($id: String!) {
    model(name: $id) {
      name task notes
      aliases { name version { number } }
      versions(first: 50) {
        nodes {
          id number state format precision origin sizeBytes createdAt downloadUrl
          evaluations { top1 map5095 split testTimeAugmentation }
          lineage { number }
          job { id failure { message } }
        }
      }
    }
  }
`);

type Version = NonNullable<ResultOf<typeof ModelQuery>['model']>['versions']['nodes'][number];

export function Models() {
  const { width, height, go } = useFrame();
  const { data } = useData(ModelsQuery, {}, refreshMs);
  return (
    <List
      rows={data?.models.nodes ?? []}
      keyOf={({ name }) => name}
      width={width}
      height={height}
      empty={data ? 'There is no model yet: train one, or `u` uploads a file.' : 'Reading …'}
      onOpen={{ label: 'open', run: ({ name }) => go('model', name) }}
      always={[{ keys: 'u', label: 'upload', does: 'createModel', hint: true, run: () => go('upload-model') }]}
      columns={[
        { title: 'Name', text: ({ name }) => name },
        { title: 'Task', width: 14, from: 70, text: ({ task }) => task },
        { title: 'Version', width: 7, align: 'right', text: ({ version }) => String(version?.number ?? '–') },
        {
          title: 'State',
          width: 12,
          text: ({ version }) => stateText(version?.state),
          color: ({ version }) => states[version?.state ?? '']?.color,
        },
        { title: 'Format', width: 10, text: ({ version }) => version?.format ?? '' },
        { title: 'Size', width: 9, from: 60, align: 'right', text: ({ version }) => bytes(version?.sizeBytes) },
        {
          title: 'Aliases',
          width: 20,
          from: 90,
          text: ({ aliases }) => aliases.map(({ name, version }) => `${name}=v${version.number}`).join(' '),
        },
      ]}
    />
  );
}

/** The newest evaluation of the version as it serves, in the measure of its task. */
const accuracyOf = ({ evaluations }: Version): string => {
  const newest = evaluations.find(({ testTimeAugmentation }) => testTimeAugmentation === 'NONE');
  return newest ? number(newest.top1 ?? newest.map5095) : '–';
};

export function ModelScreen({ id }: { id: string }) {
  const { width, height, go, say, copy } = useFrame();
  const { session } = useConnection();
  const { data } = useData(ModelQuery, { id }, refreshMs);
  const [packaged, setPackaged] = useState<Version | null>(null);
  const model = data?.model;
  if (!model) return <Text color={theme.muted}>{data ? ' There is no such model.' : ' Reading …'}</Text>;
  const aliases = model.aliases.map(({ name, version }) => `${name} = v${version.number}`).join('  ');
  const front = packaged && (
    <PackageForm id={packaged.id} title={`Package ${model.name} v${packaged.number}`} onClose={() => setPackaged(null)} />
  );
  return (
    <Behind front={front}>
      <Box flexDirection="column" width={width} height={height}>
        <Text bold wrap="truncate">{` ${printable(model.name)}  ${model.task}  ${aliases}  ${printable(model.notes)}`}</Text>
        <List
          rows={model.versions.nodes}
          isActive={!front}
          keyOf={(row) => row.id}
          width={width}
          height={height - 1}
          empty="It has no version."
          onOpen={{ label: 'open its job', run: ({ job }) => (job ? go('job', job.id) : say('No job has made this version.', 'bad')) }}
          keys={(row) =>
            keysOfVersion(
              row,
              go,
              (url) => copy('The link', new URL(url, session.url).href),
              () => setPackaged(row),
            )
          }
          always={[{ keys: 'h', label: 'history', hint: true, run: () => go('model-history', id) }]}
          columns={[
            { title: 'Version', width: 7, align: 'right', text: (row) => String(row.number) },
            { title: 'State', width: 12, text: ({ state }) => stateText(state), color: ({ state }) => states[state]?.color },
            { title: 'Format', width: 10, text: ({ format }) => format },
            { title: 'Prec.', width: 5, from: 60, text: ({ precision }) => precision ?? '' },
            { title: model.task === 'DETECTION' ? 'mAP50-95' : 'Top-1', width: 8, align: 'right', text: accuracyOf },
            { title: 'Size', width: 9, from: 60, align: 'right', text: ({ sizeBytes }) => bytes(sizeBytes) },
            { title: 'Age', width: 7, from: 70, text: ({ createdAt }) => age(createdAt) },
            {
              title: 'From',
              text: ({ origin, lineage, job }) => job?.failure?.message ?? `${origin}${lineage.map((l) => ` ← v${l.number}`).join('')}`,
            },
          ]}
        />
      </Box>
    </Behind>
  );
}

const keysOfVersion = (
  { id, state, format, precision, downloadUrl }: Version,
  go: (screen: string, id: string) => void,
  hand: (url: string) => void,
  pack: () => void,
) => {
  if (state !== 'READY') return [];
  const onnx = format === 'ONNX';
  return [
    { keys: 'e', label: 'evaluate', does: 'startEvaluation', hint: true, run: () => go('evaluate', id) } as const,
    ...(onnx ? [] : [{ keys: 'c', label: 'convert', does: 'startConversion', hint: true, run: () => go('convert', id) } as const]),
    ...(onnx && precision === 'FP32'
      ? [{ keys: 'c', label: 'compress', does: 'startCompression', run: () => go('compress', id) } as const]
      : []),
    ...(onnx ? [{ keys: 'b', label: 'benchmark', does: 'startBenchmark', hint: true, run: () => go('benchmark', id) } as const] : []),
    ...(onnx ? [{ keys: 'd', label: 'deploy', does: 'deploy', hint: true, run: () => go('deploy', id) } as const] : []),
    ...(onnx ? [{ keys: 'p', label: 'package', run: pack }] : []),
    ...(downloadUrl ? [{ keys: 'o', label: 'copy link', hint: true, run: () => hand(downloadUrl) }] : []),
  ];
};
