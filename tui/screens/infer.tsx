/** Sends an image to a deployment and shows what it sees. */
import { Box, Text } from 'ink';
import { useState } from 'react';
import { type FieldError, type Outcome, useAction } from '../actions.ts';
import { readImage } from '../session/upload.ts';
import { Form } from '../ui/Form.tsx';
import type { Field } from '../ui/fields.ts';
import { number, padTo } from '../ui/format.ts';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';

type Prediction = NonNullable<NonNullable<Outcome<'infer'>['payload']>['prediction']>;

const fields: Field[] = [
  { name: 'image', label: 'Image', description: 'Path of a JPEG, PNG or WebP on this machine.', kind: 'text', required: true, initial: '' },
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

export function Infer({ id }: { id: string }) {
  const { width, height, back } = useFrame();
  const infer = useAction('infer');
  const [answer, setAnswer] = useState<{ prediction: Prediction; ms: number } | null>(null);
  const submit = async ({ image, score }: Record<string, unknown>): Promise<readonly FieldError[]> => {
    setAnswer(null);
    try {
      const content = await readImage(String(image));
      const startedAt = performance.now();
      const { payload, errors } = await infer({ input: { deployment: id, image: content, score: score as number } });
      if (payload?.prediction) setAnswer({ prediction: payload.prediction, ms: performance.now() - startedAt });
      return errors;
    } catch (error) {
      return [{ field: ['image'], message: (error as Error).message }];
    }
  };
  const formHeight = Math.min(7, height - 4);
  return (
    <Box flexDirection="column" width={width} height={height}>
      <Form title={`Try ${id}`} submitLabel="send" fields={fields} width={width} height={formHeight} submit={submit} onCancel={back} />
      {answer && <Answer {...answer} width={width} height={height - formHeight} />}
    </Box>
  );
}

function Answer({ prediction, ms, width, height }: { prediction: Prediction; ms: number; width: number; height: number }) {
  const { classes, detections, revision } = prediction;
  const barWidth = Math.max(4, Math.min(40, width - 34));
  return (
    <Box flexDirection="column">
      <Text
        color={theme.muted}
      >{` Revision ${revision} answered in ${Math.round(ms)} ms${detections ? `: ${detections.length} detections` : ''}`}</Text>
      {(classes ?? []).slice(0, height - 1).map(({ label, index, probability }) => (
        <Text key={index} wrap="truncate">
          {` ${padTo(label ?? `class ${index}`, 20)} ${padTo(`${(probability * 100).toFixed(1)} %`, 8, 'right')} `}
          <Text color={theme.accent}>{'█'.repeat(Math.round(probability * barWidth))}</Text>
        </Text>
      ))}
      {(detections ?? []).slice(0, height - 1).map(({ label, index, score, x, y, width: w, height: h }, n) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an answer does not change.
        <Text key={n} wrap="truncate">
          {` ${padTo(label ?? `class ${index}`, 20)} ${padTo(`${(score * 100).toFixed(1)} %`, 8, 'right')}  ${number(w)} × ${number(h)} at ${number(x)}, ${number(y)}`}
        </Text>
      ))}
    </Box>
  );
}
