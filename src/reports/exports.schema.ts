import { builder, enumValues, idOf } from '../graphql/builder.ts';
import type { ExportedReport, ReportFormat } from './exports.ts';
import { exportOf, type Reported, reportUrl } from './serve.ts';

export const ReportFormatType = builder.enumType('ReportFormat', {
  description: 'Form of an exported report.',
  values: enumValues<ReportFormat>({
    JSON: 'Everything, as canonical JSON: what `sha256` is the hash of.',
    CSV: 'The raw numbers. A line is a row of a benchmark, a trial of a study, a point of training curves, a class of an evaluation, or a rate of a load test.',
    MARKDOWN: 'Everything but the plots, for people.',
    HTML: 'Everything with plots, as one page that needs no other file and no script. Open its `url` in a browser, or save its `content`.',
  }),
});

type Exported = ExportedReport & { of: Reported; format: ReportFormat };

export const ReportExportType = builder.objectRef<Exported>('ReportExport').implement({
  description: 'A report as a file.',
  fields: (t) => ({
    fileName: t.exposeString('fileName', { description: 'Name to save it under.' }),
    mediaType: t.exposeString('mediaType', { description: 'Such as text/markdown.' }),
    content: t.exposeString('content', { description: 'What is in it, as UTF-8.' }),
    sha256: t.exposeString('sha256', { description: 'SHA-256 of the report as JSON, which every format is made of.' }),
    url: t.string({
      description: 'A short-lived link to the file: a browser shows HTML and stores the other formats. It needs no token.',
      resolve: ({ of, format }, _args, context) => reportUrl(context, of, format),
    }),
  }),
});

export const exported = async (context: Parameters<typeof exportOf>[0], of: Reported, format: ReportFormat): Promise<Exported> => ({
  ...(await exportOf(context, context, of, format)),
  of,
  format,
});

builder.queryField('exportJobs', (t) =>
  t.field({
    type: ReportExportType,
    description:
      'A training, an evaluation, a load test or a study as a file, or two to four trainings beside each other. A benchmark has its `Job.report`. ' +
      'A job that has not ended is reported as far as it has come.',
    extensions: { cost: 500 },
    authScopes: { can: 'READ' },
    args: {
      jobIds: t.arg.idList({ required: true, description: 'One job of TRAIN, EVALUATE, LOAD_TEST or TUNE, or two to four TRAIN jobs.' }),
      format: t.arg({ type: ReportFormatType, required: true, description: 'In which form.' }),
    },
    resolve: (_root, { jobIds, format }, context) => exported(context, { jobIds: jobIds.map((id) => idOf('Job', String(id))) }, format),
  }),
);
