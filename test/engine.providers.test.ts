/** ONNX Runtime on a GPU, on machines that have none, or not what it needs. Nothing here computes on a GPU. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { engines } from '../src/engine/engines.ts';
import { onnxruntimeLibrary, providerLibrary } from '../src/engine/libraries.ts';
import { providerProblem } from '../src/engine/providers.ts';
import { floats, nativeMissing, whyNoNative, withModels } from './support/engines.ts';
import { withFakeNvml } from './support/fakeNvml.ts';

const ofGpu = [
  ['ONNXRUNTIME_CUDA', 'cuda'],
  ['ONNXRUNTIME_NATIVE_CUDA', 'cuda'],
  ['ONNXRUNTIME_NATIVE_TENSORRT', 'tensorrt'],
] as const;

test.each(ofGpu)('%s is missing where no GPU is seen', async (engine) => {
  const reason = await engines[engine].missing('/nowhere/to/be/found');
  expect(reason).toBe('There is no NVIDIA GPU to be seen: nvidia-smi is not installed on this machine.');
});

describe.skipIf(nativeMissing !== null)(`the native runtime${whyNoNative}`, () => {
  const fileOf = withModels(['identity']);
  const library = withFakeNvml();
  afterAll(() => vi.unstubAllEnvs());

  describe.skipIf(existsSync(providerLibrary('cuda')))('without the libraries of CUDA', () => {
    test.each(ofGpu)('%s is missing beside a GPU, with what to do', async (engine) => {
      vi.stubEnv('WHETSTONE_NVML_LIBRARY', library);
      expect(await engines[engine].missing('/nowhere/but/nvml')).toMatch(/ONNXRUNTIME_NODE_INSTALL=cuda12|for Linux on x86-64 only/);
    });

    test.each(ofGpu.slice(1))('%s refuses a model with what the library says, and the next is loaded', async (engine, provider) => {
      const { nativeOpener } = await import('../src/engine/native.ts');
      const problem = await providerProblem(provider);
      expect(problem).toMatch(
        /^ONNX Runtime cannot use its (CUDA|Tensorrt)ExecutionProvider: (Failed to load library libonnx|it was built)/,
      );
      expect(problem).not.toContain(dirname(onnxruntimeLibrary));
      const loading = nativeOpener(engine as 'ONNXRUNTIME_NATIVE_CUDA')(fileOf('identity'), { intraOpThreads: 1 });
      await expect(loading).rejects.toThrow(String(problem).split(':')[0]);
      const session = await nativeOpener('ONNXRUNTIME_NATIVE')(fileOf('identity'), { intraOpThreads: 1 });
      const { outputs } = await session.run(new Map([['x', floats([1, 4], [1, 2, 3, 4])]]));
      expect(outputs.get('y')).toEqual(floats([1, 4], [1, 2, 3, 4]));
      await session.close();
    });
  });
});
