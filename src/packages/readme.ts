import { resourceName } from './kserve.ts';
import type { PackageForm, PackageSource } from './source.ts';

/** What a package is and how it is used. */
export function readmeText(source: PackageSource, form: PackageForm): string {
  const { model, version } = source;
  return `# ${model.name}, version ${version.number}

${uses[form](source)}
Where the weights come from, and what is known of their licence, is in \`NOTICE.txt\`; how they were made in \`lineage.json\`.
\`sha256sum -c SHA256SUMS\` checks every file.
`;
}

const uses: Record<PackageForm, (source: PackageSource) => string> = {
  BUNDLE: ({ config }) =>
    config.preprocess
      ? `Says what is in images, with Python 3.11 or newer:

    python -m venv .venv
    .venv/bin/pip install -r requirements.txt
    .venv/bin/python predict.py photo.jpg

It prints the answer of Whetstone's \`predict\` as a line of JSON. It reads JPEG, PNG and WebP. \`preprocess.json\` says how an image becomes the
input of the model, \`predict.json\` how its outputs are read.
`
      : `The model takes tensors: nobody has said how an image becomes its input, so there is no \`predict.py\`. Set the preprocessing with
\`describeModelVersion\` and make the package again.
`,
  TRITON: (source) => `A model repository of NVIDIA Triton:

    tritonserver --model-repository=repository

${tensorsText(source)}`,
  KSERVE: (
    source,
  ) => `Store the folder \`repository/\` where your cluster reads models, set \`storageUri\` in \`inferenceservice.yaml\` to it, then:

    kubectl apply -f inferenceservice.yaml
    kubectl wait --for=condition=Ready inferenceservice/${resourceName(source.model.name)}

It uses KServe's runtime \`kserve-tritonserver\`. ${tensorsText(source)}`,
};

const tensorsText = ({ model, config }: PackageSource): string =>
  `The model answers at \`/v2/models/${encodeURIComponent(model.name)}/infer\` (Open Inference Protocol V2). It takes tensors.${
    config.preprocess ? ' `preprocess.json` says how an image becomes one.' : ''
  }\n`;
