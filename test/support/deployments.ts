import { readdirSync, readFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import { inferJson, type Sent } from './inference.ts';
import { type Api, ask, mutate } from './training.ts';

const fields = 'name active { number settings { deadlineMs batchMax } } loading { number } revisions { number state reason }';
export const deploymentOf = async (api: Api, name: string) =>
  (await ask(api, `query ($name: String!) { deployment(name: $name) { ${fields} } }`, { name })).data.deployment;

export const health = async (api: Api) => (await ask(api, '{ inferenceHealth { state url restarts reason } }')).data.inferenceHealth;

/** Waits until nothing is being loaded. */
export const settled = (api: Api, name: string) =>
  eventually(async () => {
    const deployment = await deploymentOf(api, name);
    expect(deployment.loading).toBeNull();
    return deployment;
  });

export async function deployed(api: Api, name: string, modelVersionId: string, settings?: object) {
  await mutate(api, 'deploy', { name, modelVersionId, settings }, 'deployment { name }');
  return settled(api, name);
}

/** Requests to the inference host, with the token of the one who asks. */
export const by = ({ token }: Api, sent: Sent = {}): Sent => ({ ...sent, headers: { authorization: `Bearer ${token}` } });

/** A request to a model that answers with its input, of which there is one for each `n`. */
export const item = (n: number) => ({ id: `${n}`, inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [n, n + 0.5, -n, 0] }] });

/**
 * At least `requests` distinct ones over `connections` to the model `echo`, of which half are answered when the model is swapped; they continue
 * until the next revision answers. Gives each revision's number of right answers, and what else came.
 */
export async function echoesDuringSwap(
  api: Api,
  { requests, connections }: Record<'requests' | 'connections', number>,
  swap: () => Promise<unknown>,
) {
  const { url } = await health(api);
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const answered = new Map<string, number>();
  const wrong: unknown[] = [];
  const half = Promise.withResolvers<void>();
  let [sent, swapped] = [0, false];
  const clients = Array.from({ length: connections }, async () => {
    while (!swapped || sent < requests) {
      sent += 1;
      const asked = item(sent);
      const { status, json } = await inferJson(url, 'echo', asked, by(api, { agent })).catch((error) => ({
        status: error.code,
        json: null,
      }));
      const right = status === 200 && json.id === asked.id && `${json.outputs[0].data}` === `${asked.inputs[0]?.data}`;
      if (right) answered.set(json.model_version, (answered.get(json.model_version) ?? 0) + 1);
      else wrong.push([asked.id, status, json]);
      if (asked.id === `${requests / 2}`) half.resolve();
    }
  });
  try {
    await half.promise;
    await swap();
    await eventually(() => expect(answered.size).toBe(2));
  } finally {
    swapped = true;
    await Promise.all(clients);
    agent.destroy();
  }
  return { answered, wrong };
}

/** The inference host that a process, or else this one, has started. */
export function hostPid(parent = process.pid): number | undefined {
  const pids = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid));
  const found = pids.find((pid) => {
    try {
      const parentOf = /\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
      return Number(parentOf) === parent && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('inference/child.ts');
    } catch {
      return false;
    }
  });
  return found === undefined ? undefined : Number(found);
}
