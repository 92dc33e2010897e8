/** Sends an image to a deployment and shows what it sees. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { type FieldError, type Outcome, useAction } from '../actions.ts';
import { readImage } from '../session/localFiles.ts';
import { Form } from '../ui/Form.tsx';
import type { Field } from '../ui/fields.ts';
import { number, padTo, printable, widest } from '../ui/format.ts';
import { level, useKeys } from '../ui/keys.tsx';
import { useFrame } from '../ui/nav.tsx';
import { PictureView } from '../ui/PictureView.tsx';
import { colourDepth, theme } from '../ui/theme.ts';

type Prediction = NonNullable<NonNullable<Outcome<'infer'>['payload']>['prediction']>;

const fields: Field[] = [
  {
    name: 'image',
    label: 'Image',
    description: 'Path of an image on this machine: JPEG, PNG, WebP, TIFF or BMP.',
    kind: 'text',
    required: true,
    initial: '',
  },
  {
    name: 'score',
    label: 'Least score',
    description: 'Of a detection, 0 to 1.',
    kind: 'number',
    required: false,
    initial: '0.25',
    minimum: 0,
    maximum: 1,
  },
];

interface Answered {
  prediction: Prediction;
  ms: number;
  image: Uint8Array;
}

export function Infer({ id }: { id: string }) {
  const { width, height, back } = useFrame();
  const infer = useAction('infer');
  const [answer, setAnswer] = useState<Answered | null>(null);
  const [isLarge, setLarge] = useState(false);
  const submit = async ({ image: path, score }: Record<string, unknown>): Promise<readonly FieldError[]> => {
    setAnswer(null);
    try {
      const image = await readImage(String(path));
      const startedAt = performance.now();
      const content = Buffer.from(image).toString('base64');
      const { payload, errors } = await infer({ input: { deployment: id, image: content, score: score as number } });
      if (payload?.prediction) setAnswer({ prediction: payload.prediction, ms: performance.now() - startedAt, image });
      return errors;
    } catch (error) {
      return [{ field: ['image'], message: (error as Error).message }];
    }
  };
  useKeys(
    isLarge
      ? [{ keys: ['ctrl-o', 'enter', 'esc'], label: 'back to the form', hint: true, run: () => setLarge(false) }]
      : answer
        ? [{ keys: 'ctrl-o', label: 'larger', hint: true, run: () => setLarge(true) }]
        : [],
    { level: level.overlay, modal: isLarge },
  );
  const formHeight = isLarge ? 0 : Math.min(7, height - 4);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Box display={isLarge ? 'none' : 'flex'}>
        <Form title={`Try ${id}`} submitLabel="send" fields={fields} width={width} height={formHeight} submit={submit} onCancel={back} />
      </Box>
      {answer && <Answer {...answer} isLarge={isLarge} width={width} height={height - formHeight} />}
    </Box>
  );
}

/** Below this many lines there is no room for the picture. */
const pictureHeightMin = 4;

function Answer({ prediction, ms, image, isLarge, width, height }: Answered & { isLarge: boolean; width: number; height: number }) {
  const { classes, detections, revision } = prediction;
  const isBeside = width >= 60;
  const pictureHeight = isBeside ? height - 1 : Math.floor((height - 1) * 0.6);
  const isDrawn = colourDepth !== 'NONE' && pictureHeight >= pictureHeightMin;
  const pictureWidth = isBeside ? (isLarge ? width - 24 : Math.floor(width / 2)) : width;
  const listWidth = isDrawn && isBeside ? width - pictureWidth : width;
  const room = isDrawn && !isBeside ? height - 1 - pictureHeight : height - 1;
  const boxes = (detections ?? []).map(({ label, index, score, ...box }) => ({
    ...box,
    class: index,
    label: `${printable(label ?? String(index))} ${Math.round(score * 100)}%`,
  }));
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Text color={theme.muted} wrap="truncate">
        {` Revision ${revision} answered in ${Math.round(ms)} ms${detections ? `: ${detections.length} detections` : ''}`}
      </Text>
      <Box flexDirection={isBeside ? 'row' : 'column'} width={width}>
        {isDrawn && <PictureView image={image} boxes={boxes} width={pictureWidth} height={pictureHeight} />}
        <Box flexDirection="column" width={listWidth} height={room} overflow="hidden">
          <Results classes={classes} detections={detections} width={listWidth} room={room} />
        </Box>
      </Box>
    </Box>
  );
}

function Results({ classes, detections, width, room }: Pick<Prediction, 'classes' | 'detections'> & { width: number; room: number }) {
  const nameOf = ({ label, index }: { label: string | null; index: number }) => label ?? `class ${index}`;
  const labelWidth = widest([...(classes ?? []), ...(detections ?? [])].map(nameOf), 10, Math.floor(width / 2));
  const barWidth = Math.max(4, Math.min(40, width - labelWidth - 14));
  return (
    <>
      {(classes ?? []).slice(0, room).map(({ label, index, probability }) => (
        <Text key={index} wrap="truncate">
          {` ${padTo(nameOf({ label, index }), labelWidth)} ${padTo(`${(probability * 100).toFixed(1)} %`, 8, 'right')} `}
          <Text color={theme.accent}>{'█'.repeat(Math.round(probability * barWidth))}</Text>
        </Text>
      ))}
      {(detections ?? []).slice(0, room).map(({ label, index, score, x, y, width: w, height: h }, n) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an answer does not change.
        <Text key={n} wrap="truncate">
          {` ${padTo(nameOf({ label, index }), labelWidth)} ${padTo(`${(score * 100).toFixed(1)} %`, 8, 'right')}${width < 40 ? '' : `  ${number(w)} × ${number(h)} at ${number(x)}, ${number(y)}`}`}
        </Text>
      ))}
    </>
  );
}
