import { expect, test } from 'vitest';
import { messyDataset } from './support/messyDataset.ts';
import { withServer } from './support/server.ts';
import { type Api, ask, mutate, succeeded, uploaded } from './support/training.ts';

test(
  'a dataset of 300 images with every defect at once trains',
  () =>
    withServer(async (server) => {
      const api: Api = { url: server.url, token: await server.as('ENGINEER') };
      const { zip, options } = await messyDataset();
      const input = { name: 'messy', task: 'DETECTION', ...options, ...(await uploaded(api, 'messy.zip', zip)) };
      const { datasetVersion } = await mutate(api, 'createDataset', input, 'datasetVersion { id job { id } }');
      await succeeded(api, datasetVersion.job.id);
      const { data } = await ask(api, '{ dataset(name: "messy") { version { counts { total train val } leftOut { count } } } }');
      const { counts, leftOut } = data.dataset.version;
      expect(counts.total + leftOut.count).toBe(300);

      const hyperparameters = { imageSize: 64, epochs: 1, batchSize: 16 };
      const training = { modelName: 'messy', datasetVersionId: datasetVersion.id, preset: 'yolov8n', hyperparameters, convert: false };
      const { job } = await mutate(api, 'startTraining', training, 'job { id }');
      await succeeded(api, job.id);
      const made = await ask(api, '{ model(name: "messy") { versions(first: 1) { nodes { evaluations { split images } } } } }');
      expect(made.data.model.versions.nodes[0].evaluations).toMatchObject([{ split: 'VAL', images: counts.val }]);
    }),
  600_000,
);
