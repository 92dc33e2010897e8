/**
 * `node openModel.ts KIND MODEL.onnx FOLDER`: one of the product's processes starts, opens the model (all but the server do) and
 * ends. `FOLDER` is empty, and the only one that is written to.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { EngineName } from '../../src/engine/engines.ts';
import { trainerFolder, trainerPython } from '../../src/python.ts';

const [kind, file, folder] = process.argv.slice(2) as [string, string, string];
const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
const model = { name: 'model', version: 1, file, sha256 };

async function runNode(args: string[], onLine: (line: string, stop: () => void) => void): Promise<void> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  createInterface({ input: child.stdout }).on('line', (line) => onLine(line, () => child.kill()));
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`It ended with ${code}.`);
}

const program = (...path: string[]) => join(import.meta.dirname, '..', '..', 'src', ...path);

async function measureCell(engine: EngineName): Promise<void> {
  const { measureModel } = await import('./benchmarkChild.ts');
  await measureModel(folder, [engine], { file, probe: null, precision: 'FP32' }, 1);
}

const kinds: Record<string, () => Promise<void>> = {
  async server() {
    Object.assign(process.env, { WHETSTONE_DATA_DIR: folder, WHETSTONE_PORT: '0', WHETSTONE_LOG_LEVEL: 'info' });
    await runNode([program('main.ts'), 'serve'], (line, stop) => line.includes('whetstone is ready') && stop());
  },

  async host() {
    const settings = join(folder, 'settings.json');
    writeFileSync(settings, JSON.stringify({ port: 0, models: [model] }));
    await runNode(
      [program('inference', 'main.ts'), '--config', settings],
      (line, stop) => line.includes('inference host is ready') && stop(),
    );
  },

  async 'host of a server'() {
    const { readConfig } = await import('../../src/config.ts');
    const { startHostProcess } = await import('../../src/deployments/hostProcess.ts');
    const { ModelConfig } = await import('../../src/inference/config.ts');
    const { createLog } = await import('../../src/log.ts');
    const { PATH, HOME, TMPDIR } = process.env;
    const config = readConfig({ PATH, HOME, TMPDIR, WHETSTONE_DATA_DIR: folder, WHETSTONE_INFERENCE_PORT: '0' });
    const publicKeys = [{ kty: 'OKP' as const, crv: 'Ed25519' as const, x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo', kid: 'one' }];
    const host = await startHostProcess(
      config,
      { publicKeys, users: [], keyOwners: [], endedSessions: [], apiKeys: [] },
      createLog(config),
      () => {},
    );
    const { refused } = await host.ask({ type: 'load', id: 'one', model: ModelConfig.parse(model) });
    await host.stop();
    if (refused) throw new Error(refused);
  },

  'cell of a benchmark': () => measureCell('ONNXRUNTIME_CPU'),
  'cell of the native engine': () => measureCell('ONNXRUNTIME_NATIVE'),
  'cell of OpenVINO': () => measureCell('OPENVINO'),

  async 'check of an import'() {
    const { limitsFor, loadOnce } = await import('../../src/models/load.ts');
    await loadOnce(folder, file, join(folder, 'load'), limitsFor(1000));
  },

  async demo() {
    const { engines, servingEngine } = await import('../../src/engine/engines.ts');
    const open = await engines[servingEngine].load();
    const session = await open(file, { intraOpThreads: 1 });
    await session.run(new Map([['x', { datatype: 'FP32', shape: [1, 4], data: new Float32Array(4) }]]));
    await session.close();
  },

  async trainer() {
    const script =
      'import sys; from whetstone_trainer import convert, import_model, train; ' +
      'from whetstone_trainer.evaluate import onnx_session; onnx_session(sys.argv[1], 1)';
    const child = spawn(trainerPython, ['-P', '-c', script, file], { cwd: folder, env: { ...process.env, PYTHONPATH: trainerFolder } });
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`It ended with ${code}.`);
  },
};

await kinds[kind]?.();
