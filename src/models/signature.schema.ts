import type { z } from 'zod';
import { builder } from '../graphql/builder.ts';
import type { OnnxMeta, WeightsMeta } from '../jobs/results.ts';

type Onnx = z.infer<typeof OnnxMeta>;
/** What was found in a version's file: of ONNX or of weights. */
export type FileSignature = Partial<Onnx & z.infer<typeof WeightsMeta>>;

const TensorSpecType = builder.objectRef<Onnx['inputs'][number]>('TensorSpec').implement({
  description: 'An input or output of a model.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'As the graph calls it.' }),
    elementType: t.exposeString('elementType', { description: 'As ONNX names it: FLOAT, FLOAT16, UINT8, INT64 …' }),
    shape: t.stringList({
      nullable: true,
      description: 'Each dimension: a number, a symbolic name such as `batch`, or `?`. Null where the file does not tell.',
      resolve: ({ shape }) => shape?.map(String),
    }),
  }),
});

const OperatorCountType = builder.objectRef<[string, number]>('OperatorCount').implement({
  description: 'How often an operator occurs in a graph.',
  fields: (t) => ({
    name: t.string({
      description: 'Such as Conv; with its domain in front (`com.microsoft::`) outside the default one.',
      resolve: ([name]) => name,
    }),
    count: t.int({ description: 'Nodes of this operator, those inside loops and functions included.', resolve: ([, count]) => count }),
  }),
});

const OpsetType = builder.objectRef<[string, number]>('Opset').implement({
  description: 'A set of operators that a graph uses.',
  fields: (t) => ({
    domain: t.string({ description: '`ai.onnx` is the default one.', resolve: ([domain]) => domain }),
    version: t.int({ description: 'Its version.', resolve: ([, version]) => version }),
  }),
});

const byCount = ([a, n]: [string, number], [b, m]: [string, number]) => m - n || (a < b ? -1 : 1);

export const ModelSignatureType = builder.objectRef<FileSignature>('ModelSignature').implement({
  description: 'What was found in the file of a model version.',
  fields: (t) => ({
    inputs: t.field({
      type: [TensorSpecType],
      description: 'Of an ONNX graph, in its order.',
      extensions: { size: 1 },
      resolve: (s) => s.inputs ?? [],
    }),
    outputs: t.field({
      type: [TensorSpecType],
      description: 'Of an ONNX graph, in its order.',
      extensions: { size: 1 },
      resolve: (s) => s.outputs ?? [],
    }),
    operators: t.field({
      type: [OperatorCountType],
      description: 'Operators of an ONNX graph, the most frequent first; at most 500.',
      extensions: { size: 3 },
      resolve: (s) => Object.entries(s.operators ?? {}).sort(byCount),
    }),
    opsets: t.field({
      type: [OpsetType],
      description: 'Operator sets of an ONNX graph.',
      extensions: { size: 1 },
      resolve: (s) => Object.entries(s.opsets ?? {}),
    }),
    irVersion: t.int({ nullable: true, description: 'ONNX file format version; null for weights.', resolve: (s) => s.irVersion }),
    producer: t.string({ nullable: true, description: 'The program that wrote the ONNX file.', resolve: (s) => s.producer || null }),
    parameters: t.field({ type: 'SafeInt', description: 'Numbers in the weights.', resolve: (s) => s.parameters ?? 0 }),
    classCount: t.int({
      nullable: true,
      description: 'Classes that weights of a preset tell apart; null for ONNX.',
      resolve: (s) => s.classCount,
    }),
    metadata: t.field({
      type: 'JSON',
      nullable: true,
      description: 'The ONNX file’s own metadata, a map of strings; values beyond 16,000 characters in all are left out.',
      resolve: (s) => s.metadata,
    }),
  }),
});
