/** Exports of tools in forms that are not read, by a file that only they have: the message says which export to choose. */
import { printable } from './problems.ts';

const boxes = 'Export the dataset as COCO, YOLO or Pascal VOC, and import it with `task: DETECTION`.';

const forms: readonly { file: RegExp; what: string; instead: string }[] = [
  {
    file: /(^|\/)_classes\.csv$/i,
    what: 'a table of labels ("Multi-Label Classification")',
    instead: 'Export the dataset as class folders ("Folder Structure"), and import it with `task: CLASSIFICATION`.',
  },
  { file: /(^|\/)_annotations\.csv$/i, what: 'a table of boxes (CSV)', instead: boxes },
  { file: /(^|\/)_annotations\.txt$/i, what: 'a table of boxes (YOLOv4 PyTorch, YOLO Keras)', instead: boxes },
  { file: /(^|\/)_annotations\.createml\.json$/i, what: 'in the form CreateML', instead: boxes },
  { file: /(^|\/)_annotations[^/]*\.jsonl$/i, what: 'in the form JSONL of a language model', instead: boxes },
  { file: /\.tfrecord(-\d+-of-\d+)?$/i, what: 'a TFRecord', instead: boxes },
  { file: /(^|\/)samples\.json$/i, what: 'in the form of FiftyOne itself', instead: boxes },
  { file: /(^|\/)via_[^/]*\.(json|csv)$/i, what: 'in the form of VIA', instead: boxes },
];

type Files = readonly { name: string }[];

/** A sentence about the first such file; null when there is none. The files of LabelMe and of Label Studio are known by their content. */
export function unreadForm(
  files: Files,
  { labelMe: [labelMe], labelStudio: [labelStudio] }: Record<'labelMe' | 'labelStudio', Files> = { labelMe: [], labelStudio: [] },
): string | null {
  for (const { file, what, instead } of forms) {
    const found = files.find(({ name }) => file.test(name));
    if (found) return `${printable(found.name)} is ${what}, which is not read. ${instead}`;
  }
  if (labelMe)
    return `${printable(labelMe.name)} is in the form LabelMe, which is not read. Convert the dataset to COCO or YOLO, for example with \`labelme2coco\`.`;
  if (labelStudio)
    return `${printable(labelStudio.name)} is in the form of Label Studio itself (JSON or JSON-MIN), which is not read. ${boxes}`;
  return null;
}
