import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildSchema, graphqlSync } from 'graphql';
import { describe, expect, test } from 'vitest';
import { type Field, fieldsOf, type InputField, placeErrors, readForm } from '../tui/ui/fields.ts';

const schema = buildSchema(readFileSync(join(import.meta.dirname, '..', 'schema.graphql'), 'utf8'));
const typeRef =
  'kind name enumValues { name } ofType { kind name enumValues { name } ofType { kind name enumValues { name } ofType { kind name } } }';

function inputFields(name: string): InputField[] {
  const source = `{ __type(name: "${name}") { inputFields { name description defaultValue type { ${typeRef} } } } }`;
  // biome-ignore lint/suspicious/noExplicitAny: what introspection answers.
  return (graphqlSync({ schema, source }).data as any).__type.inputFields;
}

describe('the fields of a form come from the schema', () => {
  const byName = (fields: Field[]) => new Map(fields.map((field) => [field.name, field]));

  test('kind, default, range and description, the required ones first', () => {
    const fields = fieldsOf(inputFields('StartTrainingInput'), { idempotencyKey: null, init: null, preset: {} });
    expect(fields.slice(0, 3).map(({ name }) => name)).toEqual(['preset', 'datasetVersionId', 'modelName']);
    const at = byName(fields);
    expect(at.get('device')).toMatchObject({ kind: 'choice', initial: 'AUTO', required: false, description: 'What it computes on.' });
    expect(at.get('device')?.options?.map(({ value }) => value)).toEqual(['AUTO', 'CPU', 'CUDA']);
    expect(at.get('convert')).toMatchObject({ kind: 'choice', initial: 'true', boolean: true });
    expect(at.get('priority')).toMatchObject({ kind: 'integer', minimum: -100, maximum: 100 });
    expect(at.get('seed')).toMatchObject({ kind: 'integer', initial: '0', maximum: undefined });
    expect(at.has('idempotencyKey')).toBe(false);
    expect(at.has('hyperparameters')).toBe(false);
  });

  test('lists of numbers and of ids', () => {
    const at = byName(fieldsOf(inputFields('StartBenchmarkInput')));
    expect(at.get('batchSizes')).toMatchObject({ kind: 'integers', initial: '1' });
    expect(at.get('modelVersionIds')).toMatchObject({ kind: 'choices', required: true });
    expect(at.get('accuracyDropMax')).toMatchObject({ kind: 'number', initial: '0.01', minimum: 0, maximum: 1 });
  });
});

describe('what is typed becomes the input', () => {
  const field = (name: string, kind: Field['kind'], more: Partial<Field> = {}): Field => ({
    ...{ name, kind, label: name, description: '', required: false, initial: '' },
    ...more,
  });
  const fields = [
    field('name', 'text', { required: true }),
    field('convert', 'choice', { boolean: true }),
    field('hyperparameters.epochs', 'integer', { minimum: 1, maximum: 100 }),
    field('hyperparameters.learningRate', 'number'),
    field('batchSizes', 'integers'),
  ];

  test('numbers are numbers, truth is true, and what is empty is not sent', () => {
    const values = { name: 'digits', convert: 'false', 'hyperparameters.epochs': '5', batchSizes: '1, 8' };
    expect(readForm(fields, values)).toEqual({
      input: { name: 'digits', convert: false, hyperparameters: { epochs: 5 }, batchSizes: [1, 8] },
      errors: {},
    });
  });

  test('what is wrong is said at its field', () => {
    const values = { 'hyperparameters.epochs': '0', 'hyperparameters.learningRate': 'fast', batchSizes: '1,x' };
    expect(readForm(fields, values).errors).toEqual({
      name: 'name is missing.',
      'hyperparameters.epochs': '0 is below 1.',
      'hyperparameters.learningRate': '“fast” is no number.',
      batchSizes: '“x” is no number.',
    });
    expect(readForm(fields, { name: 'a', 'hyperparameters.epochs': '1.5' }).errors).toEqual({
      'hyperparameters.epochs': '1.5 is not a whole number.',
    });
    expect(readForm(fields, { name: 'a', 'hyperparameters.epochs': '101' }).errors).toEqual({
      'hyperparameters.epochs': '101 is above 100.',
    });
  });

  test('what the server refuses stands at its field, also when it is inside of it, else above the form', () => {
    const errors = [
      { field: ['hyperparameters', 'epochs'], message: 'Too many.' },
      { field: ['batchSizes', '1'], message: 'Too large.' },
      { field: ['unknown'], message: 'Not here.' },
      { field: null, message: 'Nor here.' },
    ];
    expect(placeErrors(fields, errors)).toEqual({
      'hyperparameters.epochs': 'Too many.',
      batchSizes: 'Too large.',
      '': 'Not here. Nor here.',
    });
  });
});
