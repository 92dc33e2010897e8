/**
 * Forms that start something: a row for each. Their fields come from the input type of the mutation, as the server describes it; a row says what
 * the schema cannot, such as where the choices come from.
 */
import { randomUUID } from 'node:crypto';
import { Text } from 'ink';
import { useRef, useState } from 'react';
import { type ActionName, type FieldError, useAction } from '../actions.ts';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { Form } from '../ui/Form.tsx';
import { type Field, fieldsOf, type InputField, labelOf, type Option, type Values } from '../ui/fields.ts';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

const InputTypeQuery = graphql(`
  query TuiInputType($name: String!) {
    __type(name: $name) {
      inputFields {
        name description defaultValue
        type {
          kind name enumValues { name }
          ofType {
            kind name enumValues { name }
            ofType {
              kind name enumValues { name }
              ofType { kind name enumValues { name } }
            }
          }
        }
      }
    }
  }
`);

const ChoicesQuery = graphql(`
  query TuiChoices {
    presets {
      name title description task
      hyperparameters { name type description default minimum maximum values }
    }
    datasets(first: 100) { nodes { name task version { id number state counts { total } } } }
    models(first: 50) { nodes { name task versions(first: 5) { nodes { id number state format precision preset } } } }
    deployments(first: 100) { nodes { name } }
  }
`);

type Choices = ResultOf<typeof ChoicesQuery>;
type About = Record<string, Partial<Field> | null>;

interface StartForm {
  title: string;
  submitLabel: string;
  action: ActionName;
  type: string;
  /** `id` is what the form was opened for: a model version, or nothing. */
  about(choices: Choices, id: string, values: Values): About;
  more?(choices: Choices, values: Values): Field[];
  /** What is sent, where it is not what the fields say. */
  input?(input: Record<string, unknown>): Record<string, unknown>;
}

/** A choice with something chosen from the start. */
const choice = (options: readonly Option[], initial = options[0]?.value ?? ''): Partial<Field> => ({ kind: 'choice', options, initial });

const datasetVersions = ({ datasets }: Choices, task?: string): Option[] =>
  datasets.nodes.flatMap(({ name, task: of, version }) =>
    version?.state === 'READY' && version.counts && (task === undefined || of === task)
      ? [{ value: version.id, label: `${name} v${version.number} (${version.counts.total} images)` }]
      : [],
  );

const modelVersions = ({ models }: Choices, format?: string, only?: string): Option[] =>
  models.nodes.flatMap(({ name, versions }) =>
    versions.nodes
      .filter(({ state, format: of }) => state === 'READY' && (format === undefined || of === format))
      .filter(({ precision }) => only === undefined || precision === only)
      .map(({ id, number, format: of, precision }) => ({
        value: id,
        label: `${name} v${number} ${of}${precision ? ` ${precision}` : ''}`,
      })),
  );

const presetOf = ({ presets }: Choices, { preset }: Values) => presets.find(({ name }) => name === preset) ?? presets[0];

const kindOf = { ENUM: 'choice', BOOLEAN: 'choice', INT: 'integer', FLOAT: 'number' } as const;

const hyperparameterFields = (choices: Choices, values: Values): Field[] =>
  (presetOf(choices, values)?.hyperparameters ?? []).map((parameter) => ({
    name: `hyperparameters.${parameter.name}`,
    label: labelOf(parameter.name),
    description: parameter.description,
    kind: kindOf[parameter.type],
    boolean: parameter.type === 'BOOLEAN',
    required: false,
    initial: String(parameter.default),
    minimum: parameter.minimum,
    maximum: parameter.maximum,
    options: (parameter.values ?? (parameter.type === 'BOOLEAN' ? ['true', 'false'] : [])).map((value) => ({ value, label: value })),
  }));

/** `init` is one of several: here it is one text, `scratch`, `weightsOf:<id>` … */
function initOf(input: Record<string, unknown>): Record<string, unknown> {
  const [kind, id] = String(input.init ?? '').split(':');
  return kind ? { ...input, init: { [kind]: id ?? true } } : input;
}

const noKey: About = { idempotencyKey: null };

export const forms = {
  train: {
    title: 'Start a training',
    submitLabel: 'start',
    action: 'startTraining',
    type: 'StartTrainingInput',
    about: (choices, _id, values) => ({
      ...noKey,
      preset: {
        ...choice(choices.presets.map(({ name, title }) => ({ value: name, label: title }))),
        description: presetOf(choices, values)?.description ?? '',
      },
      datasetVersionId: choice(datasetVersions(choices, presetOf(choices, values)?.task)),
      hyperparameters: null,
      init: {
        kind: 'choice',
        initial: '',
        options: [
          { value: 'scratch', label: 'random weights' },
          { value: 'pretrained', label: 'pretrained weights' },
          ...modelVersions(choices, 'CHECKPOINT').flatMap(({ value, label }) => [
            { value: `weightsOf:${value}`, label: `weights of ${label}` },
            { value: `continueFrom:${value}`, label: `continue ${label}` },
          ]),
        ],
      },
    }),
    more: hyperparameterFields,
    input: initOf,
  },
  evaluate: {
    title: 'Evaluate a model version',
    submitLabel: 'start',
    action: 'startEvaluation',
    type: 'StartEvaluationInput',
    about: (choices, id) => ({
      ...noKey,
      modelVersionId: choice(modelVersions(choices), id || undefined),
      datasetVersionId: choice(datasetVersions(choices)),
    }),
  },
  convert: {
    title: 'Convert a checkpoint version to ONNX',
    submitLabel: 'start',
    action: 'startConversion',
    type: 'StartConversionInput',
    about: (choices, id) => ({
      ...noKey,
      modelVersionId: choice(modelVersions(choices, 'CHECKPOINT'), id || undefined),
      datasetVersionId: choice(datasetVersions(choices), ''),
    }),
  },
  compress: {
    title: 'Compress an ONNX version',
    submitLabel: 'start',
    action: 'startCompression',
    type: 'StartCompressionInput',
    about: (choices, id) => ({
      ...noKey,
      modelVersionId: choice(modelVersions(choices, 'ONNX', 'FP32'), id || undefined),
      datasetVersionId: choice(datasetVersions(choices), ''),
    }),
  },
  benchmark: {
    title: 'Start a benchmark',
    submitLabel: 'start',
    action: 'startBenchmark',
    type: 'StartBenchmarkInput',
    about: (choices, id) => ({
      ...noKey,
      dryRun: null,
      modelVersionIds: {
        kind: 'choices',
        options: modelVersions(choices, 'ONNX'),
        initial: id || (modelVersions(choices, 'ONNX')[0]?.value ?? ''),
      },
    }),
  },
  deploy: {
    title: 'Deploy a model version',
    submitLabel: 'deploy',
    action: 'deploy',
    type: 'DeployInput',
    about: (choices, id) => ({
      benchmarkJobId: null,
      name: {
        description: `Name of the deployment. There are: ${choices.deployments.nodes.map(({ name }) => name).join(', ') || 'none'}.`,
      },
      modelVersionId: choice(modelVersions(choices, 'ONNX'), id || undefined),
    }),
  },
} as const satisfies Record<string, StartForm>;

export type FormName = keyof typeof forms;

/** The same input again, after a lost answer, is the same job. */
function useIdempotencyKey(): (input: object) => string {
  const keys = useRef(new Map<string, string>());
  return (input) => {
    const text = JSON.stringify(input);
    const key = keys.current.get(text) ?? randomUUID();
    keys.current.set(text, key);
    return key;
  };
}

const takesKey = (fields: readonly { name: string }[]): boolean => fields.some(({ name }) => name === 'idempotencyKey');

/** What the server says about an input type. */
export function useInputFields(name: string): InputField[] | undefined {
  const { data } = useData(InputTypeQuery, { name });
  // gql.tada knows no types of the introspection itself.
  return (data?.__type as { inputFields: InputField[] } | null | undefined)?.inputFields;
}

/** The screen of a form; it opens the job that it has started, or goes back. */
export const formScreen = (name: FormName) =>
  function StartScreen({ id }: { id: string }) {
    const form: StartForm = forms[name];
    const { width, height, replace, back, say } = useFrame();
    const act = useAction(form.action);
    const keyFor = useIdempotencyKey();
    const [values, setValues] = useState<Values>({});
    const described = useInputFields(form.type);
    const choices = useData(ChoicesQuery, {});
    if (!described || !choices.data) return <Text color={theme.muted}> Reading what the server takes …</Text>;
    const fields = [...fieldsOf(described, form.about(choices.data, id, values)), ...(form.more?.(choices.data, values) ?? [])];
    const submit = async (typed: Record<string, unknown>): Promise<readonly FieldError[]> => {
      const input = form.input?.(typed) ?? typed;
      const { payload, errors } = await act({ input: takesKey(described) ? { ...input, idempotencyKey: keyFor(input) } : input } as never);
      if (payload === null) return errors;
      const { job } = payload as { job?: { id: string } | null };
      if (job) replace('job', job.id);
      else {
        back();
        say('Done.');
      }
      return [];
    };
    return (
      <Form
        title={form.title}
        submitLabel={form.submitLabel}
        fields={fields}
        width={width}
        height={height}
        onChange={setValues}
        submit={submit}
        onCancel={back}
      />
    );
  };
