/** A real training and its conversion, on a disk that becomes full in the middle of both. */
import { expect, test } from 'vitest';
import { yolo } from './support/detection.ts';
import { makeRoom, waiting, withServerOnDisk } from './support/onDisk.ts';
import { fillDisk, unmountable } from './support/smallDisk.ts';
import { type Api, ask, datasetVersionOf, jobWhen, mutate, succeeded, trained } from './support/training.ts';

interface Told {
  events: { __typename: string; attempt: number; phase?: string }[];
}

/** Of both versions of a model: what their files hold. */
async function madeOf(api: Api, name: string): Promise<unknown> {
  const query = 'query ($name: String!) { model(name: $name) { versions(first: 10) { nodes { format sha256 weightsHash } } } }';
  const { nodes } = (await ask(api, query, { name })).data.model.versions;
  return nodes.map(({ format, sha256, weightsHash }: Record<string, string>) => [format, sha256, weightsHash]);
}

test.skipIf(unmountable)(`goes on from its checkpoint when there is room, and makes the same as without ${unmountable ?? ''}`, () =>
  // A training asks for 2 GiB that are free.
  withServerOnDisk(4 * 2 ** 30, async (server, api) => {
    // Where the next one must be written soon. What a training makes does not depend on it.
    const { jobKinds } = server.services;
    const { TRAIN } = jobKinds;
    jobKinds.TRAIN = {
      ...TRAIN,
      async launch(...given) {
        const launch = await TRAIN.launch(...given);
        return { ...launch, spec: { ...launch.spec, checkpointSeconds: 0 } };
      },
    };
    const datasetVersionId = await datasetVersionOf(api, 'boxes', yolo(), 'DETECTION');
    const start = async (modelName: string): Promise<string> => {
      const input = {
        modelName,
        datasetVersionId,
        preset: 'yolov8n',
        hyperparameters: { imageSize: 32, epochs: 10, batchSize: 2 },
        seed: 7,
      };
      return (await mutate(api, 'startTraining', input, 'job { id }')).job.id;
    };
    /** On a slow machine a token expires in between. */
    const renew = async () => Object.assign(api, { token: await server.as('ENGINEER') });
    await trained(api, await start('undisturbed'));
    await renew();

    const id = await start('disturbed');
    await jobWhen(api, id, ({ events }: Told) => events.some((event) => event.__typename === 'JobCheckpointEvent'));
    let free = fillDisk(server.dataDir);
    await waiting(api, id);
    makeRoom(server, free);
    await renew();
    const training = await succeeded(api, id);
    expect(training.attempts).toMatchObject([{ state: 'SUSPENDED' }, { state: 'SUCCEEDED', resumed: expect.anything() }]);

    await renew();
    const { data } = await ask(api, 'query ($id: ID!) { job(id: $id) { children { id } } }', { id });
    const conversion = data.job.children[0].id;
    await jobWhen(api, conversion, ({ events }: Told) => events.some(({ phase }) => phase === 'export'));
    free = fillDisk(server.dataDir);
    await waiting(api, conversion);
    makeRoom(server, free);
    expect((await succeeded(api, conversion)).attempts).toMatchObject([{ state: 'SUSPENDED' }, { state: 'SUCCEEDED' }]);
    expect(await madeOf(api, 'disturbed')).toEqual(await madeOf(api, 'undisturbed'));
  }),
);
