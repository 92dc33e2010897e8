/** Sections about an evaluation's findings: pictures of what went wrong. */
import { number, percent, plural } from '../format.ts';
import { none, type Picture, type Section } from '../forms/document.ts';
import type { ClassifiedFacts, DetectedFacts, FindingFacts, Thumbnail } from './findings.ts';

export type Thumbnails = ReadonlyMap<number, Thumbnail>;

export function findingSections(findings: FindingFacts | null, thumbnails: Thumbnails): Section[] {
  if (!findings) return [];
  const picture = (n: number, path: string | null, caption: string, boxes: Picture['boxes'] = []): Picture => {
    const { address, width, height } = thumbnails.get(n) ?? { address: null, width: 1, height: 1 };
    return { address, width, height, name: path ?? `image ${n}`, caption, boxes };
  };
  const classified = (one: ClassifiedFacts, caption: string) => picture(one.n, one.path, caption);
  const pairs: Section[] = findings.confused.some(({ examples }) => examples.length > 0)
    ? [
        {
          heading: 'Examples of confusions',
          screenOnly: true,
          blocks: [
            {
              pictures: findings.confused.flatMap(({ class: is, predictedClass, examples }) =>
                examples.map(({ n, path }) => picture(n, path, pairText(is, predictedClass))),
              ),
            },
          ],
        },
      ]
    : [];
  if (findings.task === 'DETECTION') {
    const { best, worst, iou } = findings;
    return [
      ...pairs,
      {
        heading: 'Worst images',
        screenOnly: true,
        blocks:
          worst.length === 0
            ? [{ text: 'No object was missed and no box was false.' }]
            : [
                {
                  text:
                    `The images with the most mistakes, where boxes count from a score of ${best ? number(best.score) : none} and find an object of their class at IoU ${iou}. ` +
                    'A solid frame is an object that was missed, a dashed one a box that found none.',
                },
                { pictures: worst.map((one) => picture(one.n, one.path, mistakesText(one), one.boxes)) },
              ],
      },
    ];
  }
  const { worst, labelErrors } = findings;
  const { count, images } = labelErrors;
  return [
    ...pairs,
    {
      heading: 'Likely label errors',
      screenOnly: true,
      blocks: [
        { text: labelErrorText(count) },
        {
          pictures: images.map((one) =>
            classified(
              one,
              `labelled ${one.class} (${percent(one.ownProbability)}), probably ${one.predictedClass} (${percent(one.probability)})`,
            ),
          ),
        },
      ],
    },
    {
      heading: 'Worst images',
      screenOnly: true,
      blocks: [
        { text: 'The images with the largest loss: the less probable the model finds their class, the larger it is.' },
        {
          pictures: worst.map((one) =>
            classified(
              one,
              one.class === one.predictedClass
                ? `${one.class}, right with ${percent(one.probability)}`
                : `${one.class} (${percent(one.ownProbability)}) taken for ${one.predictedClass} (${percent(one.probability)})`,
            ),
          ),
        },
      ],
    },
  ];
}

function labelErrorText(count: number): string {
  if (count === 0) return 'No image looks as if it had a wrong label.';
  return (
    `${plural(count, 'image is', 'images are')} probably labelled wrongly: the model finds the given class less probable than for the mean of its images, ` +
    'and another class as probable as for the mean of that one (confident learning). Look at them before you correct them.'
  );
}

/** A null class is where nothing is, or nothing was found. */
export function pairText(is: string | null, predicted: string | null): string {
  if (is === null) return `${predicted} where nothing is`;
  return predicted === null ? `${is} missed` : `${is} taken for ${predicted}`;
}

function mistakesText({ missed, false: wrong }: DetectedFacts): string {
  const parts = [...(missed > 0 ? [`${missed} missed`] : []), ...(wrong > 0 ? [`${plural(wrong, 'false box', 'false boxes')}`] : [])];
  return parts.join(', ');
}
