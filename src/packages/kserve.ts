/** The form KSERVE: an InferenceService that serves the repository of the form TRITON. */
import type { PackageSource, Texts } from './source.ts';
import { repository, tritonTexts } from './triton.ts';

/** A string of YAML. JSON's are strings of YAML too. */
const quote = JSON.stringify;

export function kserveTexts(source: PackageSource): Texts {
  const { model, version } = source;
  const name = resourceName(model.name);
  return {
    ...tritonTexts(source),
    'inferenceservice.yaml': `apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: ${quote(name)}
  annotations:
    whetstone/model: ${quote(model.name)}
    whetstone/version: ${quote(`${version.number}`)}
    whetstone/sha256: ${quote(version.sha256)}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      runtime: kserve-tritonserver
      protocolVersion: v2
      # Where you have stored the folder ${repository}/, such as pvc://, s3:// or gs://.
      storageUri: ${quote(`pvc://models/${name}`)}
`,
  };
}

/** A name that Kubernetes takes (RFC 1035): letters of other scripts are left out. */
export function resourceName(name: string): string {
  const plain = name
    .normalize('NFKD')
    .toLowerCase()
    .replace(/\p{M}/gu, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '')
    .slice(0, 40)
    .replace(/-+$/, '');
  return plain || 'model';
}
