import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { expect } from 'vitest';
import { digitFolders, type Files, zipOf } from './images.ts';
import { type Answer, postGraphql } from './server.ts';
import { post } from './storage.ts';

/** A server, in this process or another one, with a token that may run jobs. */
export interface Api {
  url: string;
  token: string;
}

export const ask = ({ url, token }: Api, query: string, variables: unknown = {}): Promise<Answer> =>
  postGraphql(url, query, variables, token);

/** What a mutation's payload holds beside its user errors, of which there are none. */
export async function mutate(api: Api, name: string, input: object, fields: string) {
  const type = `${(name[0] as string).toUpperCase()}${name.slice(1)}Input`;
  const query = `mutation ($input: ${type}!) { ${name}(input: $input) { ${fields} userErrors { code field message } } }`;
  const { data, errors } = await ask(api, query, { input });
  expect(errors).toBeUndefined();
  expect(data[name].userErrors).toEqual([]);
  return data[name];
}

const jobFields =
  'state failure { code message } waitReason { code message } spec result attempts { number state charged resumed { epoch batch } } events(first: 1000) { __typename seq attempt ... on JobPhaseEvent { phase } }';

/** The job as it is when `enough` says so: it is asked again and again, and an end that was not waited for throws. */
export async function jobWhen(api: Api, id: string, enough: (job: Answer['data']) => boolean) {
  for (;;) {
    const { data } = await ask(api, `query ($id: ID!) { job(id: $id) { ${jobFields} } }`, { id });
    if (enough(data.job)) return data.job;
    if (['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(data.job.state)) throw new Error(`The job has ended: ${JSON.stringify(data.job)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const succeeded = (api: Api, id: string) => jobWhen(api, id, (job) => job.state === 'SUCCEEDED');

/** The training when it has ended, with the jobs that it has made: its conversion. They have succeeded. */
export async function trained(api: Api, id: string) {
  const training = await succeeded(api, id);
  const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { children { id kind parent { id } } } }', { id });
  const children: Answer['data'][] = [];
  for (const child of data.job.children) children.push({ ...child, ...(await succeeded(api, child.id)) });
  return { ...training, children };
}

export async function uploaded({ url, token }: Api, fileName: string, bytes: Buffer) {
  const { json } = await post(url, token, fileName, bytes);
  return { uploadId: json.uploadId, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** The id of a READY dataset version of these files. */
export async function datasetVersionOf(api: Api, name: string, files: Files, task = 'CLASSIFICATION'): Promise<string> {
  const input = { name, task, ...(await uploaded(api, `${name}.zip`, zipOf(files))) };
  const { datasetVersion } = await mutate(api, 'createDataset', input, 'datasetVersion { id job { id } }');
  await succeeded(api, datasetVersion.job.id);
  return datasetVersion.id;
}

/** The id of a READY model version of this file; `about` it is what `createModel` takes. */
export async function modelVersionOf(api: Api, name: string, file: string, about: object = {}): Promise<string> {
  const input = { name, task: 'CLASSIFICATION', ...(await uploaded(api, basename(file), readFileSync(file))), ...about };
  const { modelVersion } = await mutate(api, 'createModel', input, 'modelVersion { id job { id } }');
  await succeeded(api, modelVersion.job.id);
  return modelVersion.id;
}

/** A dataset version of real digits: `count` images of each of `labels`. Gives its id. */
export const digitsVersion = async (api: Api, labels: number[], count: number): Promise<string> =>
  datasetVersionOf(api, 'digits', await digitFolders(labels, count));
