import { hyperparametersOf } from '../../jobs/hyperparameterInfo.ts';
import { type PresetName, presets } from '../../jobs/presets.ts';
import { gateFailures } from '../../models/gate.ts';
import { opaqueId } from '../../naming.ts';
import { comparisonsOf, conversionFailures } from '../../training/gates.ts';
import { plural } from '../format.ts';
import { none, type ReportDocument, type Section } from '../forms/document.ts';
import type { ConversionFacts, TrainingFacts } from './facts.ts';
import type { Thumbnails } from './findingSections.ts';
import {
  attemptSection,
  datasetName,
  datasetRow,
  endText,
  evaluationSections,
  lineageSection,
  mainMetric,
  provenanceSection,
  shaText,
  versionName,
  versionRow,
} from './parts.ts';
import { curvePlots } from './plots.ts';

export function trainingDocument(facts: TrainingFacts, sha256: string, thumbnails: Thumbnails): ReportDocument {
  const { model, version, evaluation, state, curves, dataset, conversion, init, jobId, endedAt } = facts;
  const found = mainMetric(evaluation);
  return {
    kind: 'Training',
    title: `Training of ${version ? versionName(version) : (model ?? '(deleted)')}: ${found ?? state}`,
    lead: [{ list: points(facts) }],
    sections: [
      {
        heading: 'Curves',
        blocks:
          curves.length === 0
            ? [{ text: 'There are no curves: no epoch has ended, or they are past their retention.' }]
            : [{ plots: curvePlots(curves) }],
      },
      ...evaluationSections(evaluation, thumbnails),
      ...(conversion ? [conversionSection(conversion)] : []),
      settingsSection(facts),
      attemptSection(facts),
      lineageSection([version, conversion?.version ?? null]),
      provenanceSection([
        ['The training', opaqueId('Job', jobId)],
        ...[version, conversion?.version, init.version].flatMap((one) => (one ? [versionRow(one)] : [])),
        datasetRow(dataset),
      ]),
    ],
    footer: [`Content hash of the dataset version: ${dataset.contentHash ?? none}. Ended: ${endedAt ?? 'not yet'}.`, shaText(sha256)],
  };
}

const starts: Record<string, string> = {
  SCRATCH: 'random weights',
  PRETRAINED: 'the public weights of the preset',
  WEIGHTS: 'the weights of',
  CHECKPOINT: 'where this training ended:',
};

export const startText = ({ init: { from, version } }: TrainingFacts): string =>
  `${starts[from] ?? from}${from === 'WEIGHTS' || from === 'CHECKPOINT' ? ` ${versionName(version)}` : ''}`;

function points(facts: TrainingFacts): string[] {
  const { preset, dataset, evaluation, result, hyperparameters, conversion, state } = facts;
  const found = mainMetric(evaluation);
  const { images } = dataset;
  return [
    ...(found ? [`The best weights reach ${found} on ${evaluation?.metrics.images} images of the split ${evaluation?.split}.`] : []),
    `${presets[preset as PresetName]?.title ?? preset} started from ${startText(facts)}. Dataset: ${datasetName(dataset)}, ` +
      `${images?.train ?? none} training and ${images?.val ?? none} validation images of ${plural(dataset.classes ?? 0, 'class', 'classes')}.`,
    ...(result
      ? [
          `It ran ${result.epochs} of ${hyperparameters.epochs} epochs; epoch ${result.bestEpoch} was the best.` +
            (result.stoppedEarly ? ' It stopped early, since no later epoch was better.' : ''),
        ]
      : []),
    ...(conversion ? [conversionText(conversion)] : state === 'SUCCEEDED' ? ['It was not converted to ONNX.'] : []),
    endText(facts),
  ];
}

function conversionText({ state, failure, version }: ConversionFacts): string {
  if (version) return `The conversion to ONNX passed its gate: ${versionName(version)}.`;
  return failure
    ? `The conversion to ONNX failed: ${failure.message} (${failure.code})`
    : `The state of the conversion to ONNX is ${state}.`;
}

function conversionSection(conversion: ConversionFacts): Section {
  const { gate } = conversion;
  if (!gate) return { heading: 'Conversion gate', blocks: [{ text: conversionText(conversion) }] };
  const failures = conversionFailures(gate);
  return {
    heading: 'Conversion gate',
    blocks: [
      {
        text: `${failures.length === 0 ? 'The ONNX file passed.' : `The ONNX file did not pass. ${failures.join(' ')}`} Its outputs were compared with those of the checkpoint on ${gate.images} ${gate.inputs === 'SEEDED' ? 'seeded inputs' : 'validation images'}.`,
      },
      {
        table: {
          caption: 'The largest difference of each output, and what is allowed.',
          head: ['Output', 'Largest difference', 'Allowed', 'Result'],
          rows: comparisonsOf(gate).map((one) => [
            one.output,
            one.largestDifference === null ? 'not a number' : one.largestDifference.toPrecision(3),
            one.tolerance.toPrecision(3),
            gateFailures([one]).length === 0 ? 'passed' : 'failed',
          ]),
        },
      },
    ],
  };
}

/** What was asked for, the values of the preset beside it. */
function settingsSection(facts: TrainingFacts): Section {
  const usual = new Map(hyperparametersOf(facts.preset as PresetName).map((one) => [one.name, one.default]));
  const text = (value: unknown) => String(value ?? none);
  return {
    heading: 'Settings',
    blocks: [
      {
        table: {
          caption: 'The hyperparameters, and the defaults of the preset. An asterisk marks those that differ.',
          head: ['Setting', 'Value', 'Default', 'Differs'],
          rows: Object.entries(facts.hyperparameters).map(([name, value]) => [
            name,
            text(value),
            text(usual.get(name)),
            usual.get(name) === value ? '' : '*',
          ]),
        },
      },
      { text: computingText(facts) },
    ],
  };
}

function computingText({ seed, device, cpuThreads, processes }: TrainingFacts): string {
  const threads = `${plural(cpuThreads, 'thread')} of PyTorch`;
  return `Seed ${seed}, device ${device}, ${processes === 1 ? threads : `${processes} processes with ${threads} each`}.`;
}
