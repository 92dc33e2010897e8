/** What a job works on, in a few words. */

/** What `subjectOf` reads of a job. */
export const subjectFields = `
  kind spec
  model { name }
  study { model { name } }
  trial { number }
  modelVersions { number precision model { name } }
  datasetVersion { number dataset { name } }
`;

interface Subject {
  kind: string;
  spec: unknown;
  model: { name: string } | null;
  study: { model: { name: string } | null } | null;
  trial: { number: number } | null;
  /** Those that it works on, then those that it has made. */
  modelVersions: readonly { number: number; precision: string | null; model: { name: string } }[];
  datasetVersion: { number: number; dataset: { name: string } } | null;
}

interface Spec {
  fileName?: string;
  preset?: string;
  generation?: number;
  split?: string;
  compression?: { precision: string };
  modelVersionIds?: unknown[];
  batchSizes?: unknown[];
  engines?: unknown[];
  intraOpThreads?: unknown[];
}

export function subjectOf({ kind, spec, model, study, trial, modelVersions, datasetVersion }: Subject): string {
  const {
    fileName,
    preset,
    generation,
    split,
    compression,
    modelVersionIds = [],
    batchSizes = [],
    engines = [],
    intraOpThreads = [],
  } = (spec ?? {}) as Spec;
  const versions = modelVersions.map(({ number, precision, model: { name } }) => [name, `v${number}`, precision].filter(Boolean).join(' '));
  const made = modelVersions[1];
  const dataset = datasetVersion && `${datasetVersion.dataset.name} v${datasetVersion.number}`;
  const rows = modelVersionIds.length * batchSizes.length * engines.length * intraOpThreads.length;
  const parts: Record<string, (string | null | undefined | false)[]> = {
    TRAIN: [model?.name ?? study?.model?.name, trial && `trial ${trial.number}`, preset, dataset && `on ${dataset}`],
    TUNE: [model?.name, dataset && `on ${dataset}`],
    ASK: [study?.model?.name, `generation ${generation ?? 0}`],
    MEASURE: [study?.model?.name, 'latency of a study'],
    CONVERT: [versions[0], made && `→ v${made.number} ${made.precision ?? ''}`],
    COMPRESS: [versions[0], made ? `→ v${made.number} ${made.precision ?? ''}` : compression && `→ ${compression.precision}`],
    EVALUATE: [versions[0], dataset && `on ${dataset}`, split],
    BENCHMARK: [versions.join(', '), rows > 0 && `${rows} ${rows === 1 ? 'row' : 'rows'}`],
    IMPORT_DATASET: [dataset, fileName],
    IMPORT_MODEL: [versions[0], fileName],
  };
  return (parts[kind] ?? []).filter(Boolean).join(' ').trim();
}
