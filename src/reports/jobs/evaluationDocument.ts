import { opaqueId } from '../../naming.ts';
import { none, type ReportDocument } from '../forms/document.ts';
import type { EvaluateFacts } from './facts.ts';
import type { Thumbnails } from './findingSections.ts';
import {
  attemptSection,
  datasetName,
  datasetRow,
  endText,
  evaluationSections,
  lineageSection,
  mainMetric,
  provenanceSection,
  shaText,
  versionName,
  versionRow,
} from './parts.ts';

export function evaluationDocument(facts: EvaluateFacts, sha256: string, thumbnails: Thumbnails): ReportDocument {
  const { version, dataset, split, evaluation, state, jobId, endedAt } = facts;
  const found = mainMetric(evaluation);
  const images = evaluation?.metrics.images;
  return {
    kind: 'Evaluation',
    title: `${versionName(version)} on ${datasetName(dataset)}: ${found ?? state}`,
    lead: [
      {
        list: [
          ...(found ? [`The model reaches ${found} on ${images} images of the split ${split}, computed by ${evaluation?.engine}.`] : []),
          endText(facts),
        ],
      },
    ],
    sections: [
      ...evaluationSections(evaluation, thumbnails),
      attemptSection(facts),
      lineageSection([version]),
      provenanceSection([['The evaluation', opaqueId('Job', jobId)], ...(version ? [versionRow(version)] : []), datasetRow(dataset)]),
    ],
    footer: [`Content hash of the dataset version: ${dataset.contentHash ?? none}. Ended: ${endedAt ?? 'not yet'}.`, shaText(sha256)],
  };
}
