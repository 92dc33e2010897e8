/** Forms that begin with a file: it is sent, then the mutation names it. */
import { Box, Text } from 'ink';
import { useRef, useState } from 'react';
import { type Uploaded, uploadFile } from '../../client/upload.ts';
import { type FieldError, useAction } from '../actions.ts';
import { useConnection } from '../session/live.tsx';
import { pathOf } from '../session/localFiles.ts';
import { Form } from '../ui/Form.tsx';
import { type Field, fieldsOf } from '../ui/fields.ts';
import { bar, bytes } from '../ui/format.ts';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import { useInputFields } from './start.tsx';

const path = (description: string): Field => ({ name: 'path', label: 'File', description, kind: 'text', required: true, initial: '' });

const kinds = {
  dataset: {
    title: 'Upload a dataset',
    action: 'createDataset',
    type: 'CreateDatasetInput',
    path: path('Path of a zip on this machine: class folders, YOLO, COCO or Pascal VOC.'),
    jobOf: (payload: unknown) => (payload as { datasetVersion: { job: { id: string } | null } | null }).datasetVersion?.job,
  },
  model: {
    title: 'Upload a model',
    action: 'createModel',
    type: 'CreateModelInput',
    path: path('Path of a file on this machine: .onnx, .safetensors or .pt.'),
    jobOf: (payload: unknown) => (payload as { modelVersion: { job: { id: string } | null } | null }).modelVersion?.job,
  },
} as const;

export const uploadScreen = (name: keyof typeof kinds) =>
  function UploadScreen() {
    const kind = kinds[name];
    const { width, height, replace, back } = useFrame();
    const { session } = useConnection();
    const act = useAction(kind.action);
    const described = useInputFields(kind.type);
    const [sent, setSent] = useState<{ sentBytes: number; sizeBytes: number } | null>(null);
    /** When only another field was wrong, the file is not sent again. */
    const done = useRef<{ file: string; uploaded: Uploaded } | null>(null);
    if (!described) return <Text color={theme.muted}> Reading what the server takes …</Text>;
    const fields = [kind.path, ...fieldsOf(described, { uploadId: null, sha256: null, idempotencyKey: null, labels: null, notes: {} })];
    const submit = async ({ path: file, ...input }: Record<string, unknown>): Promise<readonly FieldError[]> => {
      try {
        const progress = (sentBytes: number, sizeBytes: number) => setSent({ sentBytes, sizeBytes });
        const known = done.current?.file === file ? done.current?.uploaded : undefined;
        const uploaded = known ?? (await uploadFile(session, pathOf(String(file)), progress));
        done.current = { file: String(file), uploaded };
        // An upload makes one version, however often it is named.
        const { uploadId, sha256 } = uploaded;
        const { payload, errors } = await act({ input: { ...input, uploadId, sha256, idempotencyKey: uploadId } } as never);
        if (payload === null) return errors;
        const job = kind.jobOf(payload);
        if (job) replace('job', job.id);
        else back();
        return [];
      } catch (error) {
        return [{ field: ['path'], message: (error as Error).message }];
      } finally {
        setSent(null);
      }
    };
    return (
      <Box flexDirection="column" width={width} height={height}>
        <Form title={kind.title} submitLabel="upload" fields={fields} width={width} height={height - 1} submit={submit} onCancel={back} />
        <Text color={theme.accent} wrap="truncate">
          {sent
            ? ` ${bar(sent.sizeBytes === 0 ? 1 : sent.sentBytes / sent.sizeBytes, Math.min(40, width - 24))}  ${bytes(sent.sentBytes)} of ${bytes(sent.sizeBytes)}`
            : ''}
        </Text>
      </Box>
    );
  };
