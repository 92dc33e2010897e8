/** Saves a package of a model version as a zip on this machine. */
import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { useClient } from 'urql';
import { reasonOf } from '../actions.ts';
import { graphql } from '../graphql.ts';
import { useConnection } from '../session/live.tsx';
import { pathOf } from '../session/localFiles.ts';
import { Form } from '../ui/Form.tsx';
import { useFrame } from '../ui/nav.tsx';

const PackageQuery = graphql(`
  query TuiPackage($id: ID!, $form: PackageForm!) {
    exportPackage(modelVersionId: $id, form: $form) { fileName url }
  }
`);

const forms = [
  { value: 'BUNDLE', label: 'BUNDLE: a Python program' },
  { value: 'TRITON', label: 'TRITON: a model repository for NVIDIA Triton' },
  { value: 'KSERVE', label: 'KSERVE: the same, with a manifest for KServe' },
] as const;

export function PackageForm({ id, title, onClose }: { id: string; title: string; onClose: () => void }) {
  const { width, height, say } = useFrame();
  const client = useClient();
  const { session } = useConnection();
  const save = async ({ form, path }: Record<string, unknown>) => {
    const { data, error } = await client.query(PackageQuery, { id, form: form as 'BUNDLE' }).toPromise();
    if (!data) return [{ field: null, message: error ? reasonOf(error) : 'No answer.' }];
    const { fileName, url } = data.exportPackage;
    const file = pathOf(path ? String(path) : fileName);
    try {
      const answer = await fetch(new URL(url, session.url));
      if (!answer.ok || !answer.body) throw new Error(`The server answered ${answer.status}.`);
      // Not over a file that is there: it may be another package.
      await pipeline(Readable.fromWeb(answer.body as never), createWriteStream(file, { flags: 'wx' }));
    } catch (thrown) {
      return [{ field: ['path'], message: (thrown as Error).message }];
    }
    onClose();
    say(`Written to ${file}.`);
    return [];
  };
  return (
    <Form
      title={title}
      submitLabel="write the zip"
      width={width}
      height={height}
      fields={[
        {
          ...{ name: 'form', label: 'For', kind: 'choice', required: true, initial: 'BUNDLE', options: forms },
          description: 'What the model is used with; docs/how-to.md says what each holds.',
        },
        {
          ...{ name: 'path', label: 'File', kind: 'text', required: false, initial: '' },
          description: 'A file that is not there yet; without one, the name of the package in this folder.',
        },
      ]}
      submit={save}
      onCancel={onClose}
    />
  );
}
