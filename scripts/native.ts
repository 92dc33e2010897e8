/**
 * `npm run test:native`: builds the tests of the C++ sources in inference-native/ with each set of sanitizers, and runs them. Says so where
 * the set-up has built no native runtime, since it found no CMake or no compiler.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findOpenvino, nativeAddon, onnxruntimeLibrary } from '../src/engine/libraries.ts';

const root = join(import.meta.dirname, '..');
const source = join(root, 'inference-native');
const run = promisify(execFile);

const sanitizers = ['address,undefined', 'thread'];
const options = {
  // What lives as long as the process, such as the environment of ONNX Runtime, is not released.
  LSAN_OPTIONS: `suppressions="${join(source, 'test', 'leaks.txt')}":print_suppressions=0`,
  // The engines' libraries are built without it: what they do between their own threads cannot be seen.
  TSAN_OPTIONS: 'ignore_noninstrumented_modules=1',
  // OpenVINO's threads otherwise load a library in a way that no sanitizer allows.
  TBB_ENABLE_SANITIZERS: '1',
};

async function check(sanitizer: string, models: string): Promise<void> {
  const build = join(source, `build-${sanitizer.replace(',', '-')}`);
  await run('cmake', ['-S', source, '-B', build, `-DSANITIZE=${sanitizer}`]);
  await run('cmake', ['--build', build], { maxBuffer: 2 ** 24 });
  const openvino = findOpenvino();
  const { stdout, stderr } = await run(join(build, 'native_test'), [onnxruntimeLibrary, models, ...(openvino ? [openvino.file] : [])], {
    env: { ...process.env, ...options, ORT_DISABLE_TELEMETRY: '1' },
    maxBuffer: 2 ** 24,
  });
  console.log(`${sanitizer}: ${stdout}${stderr}`.trim());
}

if (!existsSync(nativeAddon)) {
  console.log('The native runtime is not built, so its C++ sources are not tested: CMake or a C++17 compiler is missing.');
} else {
  const models = mkdtempSync(join(tmpdir(), 'whetstone-native-'));
  try {
    const python = join(root, 'trainer', '.venv', 'bin', 'python');
    const script = join(root, 'test', 'support', 'inference_models.py');
    await run(python, ['-P', script, models, 'identity', 'echo', 'plus-1', 'spin', 'matmuls', 'text']);
    await Promise.all(sanitizers.map((sanitizer) => check(sanitizer, models)));
  } catch (error) {
    // The message of a program that failed has its standard error.
    const { message, stdout = '' } = error as Error & { stdout?: string };
    console.error(`${message}\n${stdout}`);
    process.exitCode = 1;
  } finally {
    rmSync(models, { recursive: true, force: true });
  }
}
