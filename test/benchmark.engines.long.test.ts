/** Two engines in one benchmark: right results of FP32 and INT8 on both, and a report that chooses between them. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { trainerFolder } from '../src/python.ts';
import { nativeMissing, openvinoMissing, whyNoOpenvino } from './support/engines.ts';
import { python } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { ask, modelVersionOf, mutate, succeeded } from './support/training.ts';

const engines = ['ONNXRUNTIME_NATIVE', 'OPENVINO'];

describe.skipIf(openvinoMissing !== null || nativeMissing !== null)(
  `ONNX Runtime and OpenVINO${whyNoOpenvino}`,
  () => {
    test.each([
      ['resnet50', 'CLASSIFICATION'],
      ['yolov8n', 'DETECTION'],
    ])('measure %s in one benchmark, whose report chooses', (preset, task) =>
      withFolder(async (folder) =>
        withServer(async (server) => {
          const api = { url: server.url, token: await server.as('ENGINEER') };
          const script = join(import.meta.dirname, 'support', 'engine_models.py');
          await promisify(execFile)(python, ['-P', script, folder, preset], { env: { ...process.env, PYTHONPATH: trainerFolder } });
          const modelVersionIds: string[] = [];
          for (const name of [preset, `${preset}-int8`]) {
            modelVersionIds.push(await modelVersionOf(api, name, join(folder, `${name}.onnx`), { task }));
          }
          const input = {
            modelVersionIds,
            engines,
            batchSizes: [1],
            intraOpThreads: [1],
            warmupSecondsMax: 2,
            secondsMin: 3,
            secondsMax: 10,
          };
          const { job } = await mutate(api, 'startBenchmark', input, 'job { id }');
          await succeeded(api, job.id);
          const query = `query ($id: ID!) { job(id: $id) { report { verdict technical {
          choice { n } rows { n engine engineVersion precision verdict reasons { code message } itemsPerSecond } } } } }`;
          const { data, errors } = await ask(api, query, { id: job.id });
          expect(errors).toBeUndefined();
          const { choice, rows } = data.job.report.technical;
          expect(rows.map((row: Record<string, string>) => [row.precision, row.engine])).toEqual([
            ['FP32', 'ONNXRUNTIME_NATIVE'],
            ['FP32', 'OPENVINO'],
            ['INT8', 'ONNXRUNTIME_NATIVE'],
            ['INT8', 'OPENVINO'],
          ]);
          for (const row of rows)
            expect([row.verdict, row.reasons]).toEqual([expect.stringMatching(/^(VALID|UNSTABLE)$/), expect.anything()]);
          const chosen = rows.find(({ n }: { n: number }) => n === choice.n);
          expect(engines).toContain(chosen.engine);
        }),
      ),
    );
  },
  900_000,
);
