import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { nextAnswer, withEvents } from './events.ts';
import { type Files, zipOf } from './images.ts';
import type { TestServer } from './server.ts';
import { post } from './storage.ts';

export const createDatasetMutation = `mutation ($i: CreateDatasetInput!) {
  createDataset(input: $i) { dataset { id name } datasetVersion { id number state job { id state } } userErrors { code field message } }
}`;

export async function uploaded({ url }: TestServer, token: string, zip: Buffer) {
  const { json } = await post(url, token, 'digits.zip', zip);
  return { uploadId: json.uploadId, sha256: createHash('sha256').update(zip).digest('hex') };
}

/** Sends a zip the way a client does, and waits for the last event of its job. */
export async function imported(server: TestServer, token: string, zip: Buffer | Files, input = {}) {
  const upload = await uploaded(server, token, Buffer.isBuffer(zip) ? zip : zipOf(zip));
  const { data, errors } = await server.graphql(
    createDatasetMutation,
    { i: { name: 'digits', task: 'CLASSIFICATION', ...upload, ...input } },
    token,
  );
  expect(errors).toBeUndefined();
  expect(data.createDataset.userErrors).toEqual([]);
  const { id } = data.createDataset.datasetVersion.job;
  const follow = `subscription ($id: ID!) { jobEvents(id: $id) { seq } }`;
  await withEvents(
    server.url,
    follow,
    token,
    async (items) => {
      for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) expect(answer.errors).toBeUndefined();
    },
    { id },
  );
  return data.createDataset;
}
