/** The settings of a deployment in GraphQL, made from `ModelSettings`: a setting that is added there is here too. */
import { z } from 'zod';
import { DimensionInput } from '../benchmark/schema.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import { OutputLayoutType } from '../graphql/enums.ts';
import { ModelSettings } from '../inference/config.ts';

const ScoresType = builder.enumType('ClassifierScores', {
  description: 'What the output of a classifier is.',
  values: enumValues<ModelSettings['scores']>({
    LOGITS: 'Any numbers: softmax makes probabilities of them.',
    PROBABILITIES: 'Probabilities already.',
  }),
});

const EngineType = builder.enumType('DeploymentEngine', {
  description: 'What runs the model of a revision.',
  values: enumValues<ModelSettings['engine']>({
    AUTO: 'The engine of the inference host: ONNX Runtime, in native threads where the set-up has built them.',
    ONNXRUNTIME_NATIVE: 'ONNX Runtime in native threads.',
    OPENVINO: 'OpenVINO on the processor. It computes with integers of 32 bits, and cannot stop a run within a loop of the model.',
    ONNXRUNTIME_NATIVE_CUDA: 'ONNX Runtime on an NVIDIA GPU; `intraOpThreads` matters only for what the GPU cannot compute.',
    ONNXRUNTIME_NATIVE_TENSORRT:
      'TensorRT in 16-bit floats, and CUDA for what it cannot compute. Loading takes long, and a run cannot be stopped within what TensorRT computes.',
  }),
});

type Name = keyof ModelSettings;
/** Of JSON Schema, as zod writes it. */
type Definition = { type?: string; description?: string; default?: unknown } & Partial<
  Record<'minimum' | 'exclusiveMinimum' | 'maximum', number>
>;

const definitions = Object.entries(z.toJSONSchema(ModelSettings).properties as Record<Name, Definition>) as [Name, Definition][];
const enumTypes = { scores: ScoresType, outputLayout: OutputLayoutType, engine: EngineType } as const;
const scalars: Record<string, 'Int' | 'Float'> = { integer: 'Int', number: 'Float' };

const typeOf = (name: Name, { type = '' }: Definition) =>
  name in enumTypes ? enumTypes[name as keyof typeof enumTypes] : (scalars[type] ?? ('JSON' as const));

function describe({ description, minimum, exclusiveMinimum, maximum }: Definition): string {
  if (maximum === undefined) return description ?? '';
  return `${description} ${minimum === undefined ? `More than ${exclusiveMinimum}, at most` : `${minimum} to`} ${maximum}.`;
}

/** As a revision keeps them. */
export const SettingsType = builder.objectRef<Record<string, unknown>>('DeploymentSettings').implement({
  description: 'How a revision is served.',
  fields: (t) =>
    Object.fromEntries(
      definitions.map(([name, definition]) => [
        name,
        t.field({
          type: typeOf(name, definition) as 'JSON',
          nullable: definition.default === undefined,
          description: describe(definition),
          // Revisions of earlier versions lack the settings that came later.
          resolve: (settings) => settings[name] ?? definition.default,
        }),
      ]),
    ),
});

export const SettingsInput = builder.inputType('DeploymentSettingsInput', {
  description: 'How a revision is to be served.',
  fields: (t) => ({
    ...Object.fromEntries(
      definitions.flatMap(([name, definition]) => {
        const type = typeOf(name, definition);
        // A map is a list of names and sizes; run times come from a benchmark only.
        if (type === 'JSON') return [];
        const { default: defaultValue } = definition;
        const required = defaultValue !== undefined;
        return [[name, t.field({ type: type as 'JSON', required, defaultValue, description: describe(definition) })]];
      }),
    ),
    dims: t.field({ type: [DimensionInput], description: definitions.find(([name]) => name === 'dims')?.[1].description }),
  }),
});

/** The settings of an input as `ModelSettings` takes them. */
export function saidSettings(input: object | null | undefined): Record<string, unknown> {
  const { dims, ...settings } = (input ?? {}) as { dims?: { name: string; size: number }[] | null };
  const said = Object.entries(settings).filter(([, value]) => value !== null);
  return { ...Object.fromEntries(said), dims: Object.fromEntries((dims ?? []).map(({ name, size }) => [name, size])) };
}
