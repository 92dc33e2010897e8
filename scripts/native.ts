/**
 * `npm run test:native`: builds the tests of the C++ sources in inference-native/ with each set of sanitizers, runs them, and says what share of
 * the lines they ran. Says so where the set-up has built no native runtime, since it found no CMake or no compiler.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { findOpenvino, nativeAddon, onnxruntimeLibrary } from '../src/engine/libraries.ts';

const root = join(import.meta.dirname, '..');
const source = join(root, 'inference-native');
const run = promisify(execFile);

const sanitizers = ['address,undefined', 'thread'];
/** Of these the lines are counted. */
const counted = 'address,undefined';
/** Of the lines; those that need Node (`src/addon.cpp`, `src/*_binding.cpp`) are not among them: the tests in `test/` run them. */
const coveredMin = 0.85;
const options = {
  // What lives as long as the process, such as the environment of ONNX Runtime, is not released.
  LSAN_OPTIONS: `suppressions="${join(source, 'test', 'leaks.txt')}":print_suppressions=0`,
  // The search for leaks otherwise looks into storage of threads that have ended, and dies of it in one run of twenty.
  ASAN_OPTIONS: 'intercept_tls_get_addr=0',
  // The engines' libraries are built without it: what they do between their own threads cannot be seen.
  TSAN_OPTIONS: 'ignore_noninstrumented_modules=1',
  // OpenVINO's threads otherwise load a library in a way that no sanitizer allows.
  TBB_ENABLE_SANITIZERS: '1',
};

async function check(sanitizer: string, models: string): Promise<void> {
  const build = join(source, `build-${sanitizer.replace(',', '-')}`);
  const coverage = sanitizer === counted ? 'ON' : 'OFF';
  await run('cmake', ['-S', source, '-B', build, `-DSANITIZE=${sanitizer}`, `-DCOVERAGE=${coverage}`]);
  await run('cmake', ['--build', build], { maxBuffer: 2 ** 24 });
  const objects = join(build, 'CMakeFiles', 'native_test.dir');
  for (const name of countsIn(objects)) rmSync(name);
  const openvino = findOpenvino();
  const { stdout, stderr } = await run(join(build, 'native_test'), [onnxruntimeLibrary, models, ...(openvino ? [openvino.file] : [])], {
    env: { ...process.env, ...options, ORT_DISABLE_TELEMETRY: '1' },
    maxBuffer: 2 ** 24,
  });
  console.log(`${sanitizer}: ${stdout}${stderr}`.trim());
  if (sanitizer === counted) await sayCoverage(countsIn(objects));
}

const countsIn = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).flatMap((name) => (name.endsWith('.gcda') ? [join(folder, name)] : []));

interface GcovReport {
  files: { file: string; lines: { line_number: number; count: number }[] }[];
}

/** The share of lines that were run, of those of `src/` that the compiler has made code of. Throws where they are too few. */
async function sayCoverage(counts: string[]): Promise<void> {
  if (counts.length === 0) return console.log('lines that were run: not counted, since the compiler is not GCC');
  const ran = new Map<string, boolean>();
  for (const name of counts) {
    const { stdout } = await run('gcov', ['--json-format', '--stdout', name], { maxBuffer: 2 ** 26 });
    const { files } = JSON.parse(stdout) as GcovReport;
    for (const { file, lines } of files.filter((of) => resolve(source, of.file).startsWith(join(source, 'src')))) {
      for (const { line_number, count } of lines) ran.set(`${file}:${line_number}`, ran.get(`${file}:${line_number}`) || count > 0);
    }
  }
  const share = [...ran.values()].filter(Boolean).length / ran.size;
  console.log(`lines that were run: ${(100 * share).toFixed(1)} % of ${ran.size}`);
  if (!(share >= coveredMin)) throw new Error(`Tests of the C++ sources run at least ${100 * coveredMin} % of their lines.`);
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
