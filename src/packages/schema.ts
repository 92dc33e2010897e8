import { builder, enumValues, idOf } from '../graphql/builder.ts';
import { type Package, preparePackage } from './contents.ts';
import { packageUrl } from './serve.ts';
import type { PackageForm } from './source.ts';

const PackageFormType = builder.enumType('PackageForm', {
  description: 'What a model version is packaged for.',
  values: enumValues<PackageForm>({
    BUNDLE: 'A Python program that needs onnxruntime, NumPy and Pillow: the model, its labels, `predict.py`, the newest report.',
    TRITON: 'NVIDIA Triton: a model repository.',
    KSERVE: 'KServe on Kubernetes: an InferenceService and the model repository that it serves.',
  }),
});

const ModelPackageType = builder.objectRef<Package>('ModelPackage').implement({
  description: 'A model version as a zip for use outside Whetstone.',
  fields: (t) => ({
    fileName: t.exposeString('fileName', { description: 'Name to save it under.' }),
    url: t.string({
      description: 'Link to the zip, valid for 10 minutes at least and without a token. The zip is made while it is downloaded.',
      resolve: (made, _args, context) => packageUrl(context, made),
    }),
  }),
});

builder.queryField('exportPackage', (t) =>
  t.field({
    type: ModelPackageType,
    description:
      'A READY version in the format ONNX as a package, with its lineage, a note on licences and checksums. Settings are those with which the version ' +
      'served last. INVALID with the reason where the form cannot be made of it.',
    extensions: { cost: 200 },
    authScopes: { can: 'READ' },
    args: {
      modelVersionId: t.arg.id({ required: true, description: 'The version to package.' }),
      form: t.arg({ type: PackageFormType, required: true, description: 'What it is for.' }),
    },
    resolve: (_root, { modelVersionId, form }, context) => preparePackage(context, idOf('ModelVersion', String(modelVersionId)), form),
  }),
);
