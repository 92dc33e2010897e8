import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { digitFolders, zipOf } from './images.ts';
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
  'state failure { code message } result attempts { number state charged resumed { epoch batch } } events(first: 1000) { __typename seq attempt ... on JobPhaseEvent { phase } }';

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

/** A dataset version of real digits: `count` images of each of `labels`. Gives its id. */
export async function digitsVersion(api: Api, labels: number[], count: number): Promise<string> {
  const zip = zipOf(await digitFolders(labels, count));
  const { json } = await post(api.url, api.token, 'digits.zip', zip);
  const sha256 = createHash('sha256').update(zip).digest('hex');
  const input = { name: 'digits', task: 'CLASSIFICATION', uploadId: json.uploadId, sha256 };
  const { datasetVersion } = await mutate(api, 'createDataset', input, 'datasetVersion { id job { id } }');
  await succeeded(api, datasetVersion.job.id);
  return datasetVersion.id;
}
