/**
 * A model version as a zip for other runtimes. Nothing in it depends on the clock or on the machine. It has the same bytes each time, until the
 * version gets another report or evaluation, or serves with other settings.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { exportInThread } from '../reports/inThread.ts';
import { listReports, readContent } from '../reports/reports.ts';
import { blobPath, type StorageServices } from '../storage/blobs.ts';
import { textFile, type ZipFile } from '../storage/zip.ts';
import { bundleTexts } from './bundle.ts';
import { kserveTexts } from './kserve.ts';
import { lineageOf, noticeText } from './lineage.ts';
import { readmeText } from './readme.ts';
import { jsonText, type PackageForm, type PackageSource, readSource, type Texts } from './source.ts';
import { modelPath, tritonTexts } from './triton.ts';

const forms: Record<PackageForm, { texts(source: PackageSource): Texts; modelPath(source: PackageSource): string }> = {
  BUNDLE: { texts: bundleTexts, modelPath: () => 'model.onnx' },
  TRITON: { texts: tritonTexts, modelPath },
  KSERVE: { texts: kserveTexts, modelPath },
};

export interface Package {
  fileName: string;
  source: PackageSource;
  form: PackageForm;
  /** Without the report, which takes a while to write. */
  texts: Texts;
}

/** Throws an ApiError where there is no such package. */
export function preparePackage({ db }: StorageServices, modelVersionId: string, form: PackageForm): Package {
  const source = readSource(db, modelVersionId);
  const { model, version, config } = source;
  const lineage = lineageOf(db, source);
  const texts = {
    ...forms[form].texts(source),
    ...(config.preprocess ? { 'preprocess.json': jsonText(config.preprocess) } : {}),
    'lineage.json': jsonText(lineage),
    'NOTICE.txt': noticeText(lineage),
    'README.md': readmeText(source, form),
  };
  return { fileName: `${model.name}-${version.number}-${form.toLowerCase()}.zip`, source, form, texts };
}

/** The files of the zip, by name. The model is read while it is sent. */
export async function filesOf({ config, db }: StorageServices, { source, form, texts }: Package): Promise<ZipFile[]> {
  const { version } = source;
  const [report] = form === 'BUNDLE' ? listReports(db, { modelVersionId: version.id }, 1, null) : [];
  const all = { ...texts };
  if (report) {
    const stored = { content: readContent(db, report), sha256: report.sha256 };
    all['report.html'] = (await exportInThread({ does: 'EXPORT_REPORT', stored, format: 'HTML' })).content;
  }
  const path = forms[form].modelPath(source);
  const hashes = [...Object.entries(all).map(([name, text]) => [name, hashOf(text)] as const), [path, version.sha256] as const];
  all.SHA256SUMS = hashes
    .sort(byName)
    .map(([name, sha256]) => `${sha256}  ${name}\n`)
    .join('');
  const model = { name: path, content: () => createReadStream(blobPath(config.dataDir, version.sha256)) };
  return [...Object.entries(all).map(([name, text]) => textFile(name, text)), model].sort((a, b) => byName([a.name], [b.name]));
}

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');
const byName = ([a]: readonly [string, ...unknown[]], [b]: readonly [string, ...unknown[]]): number => (a < b ? -1 : 1);
