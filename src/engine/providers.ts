/** Whether ONNX Runtime can use the GPU's providers. Their libraries bring those of CUDA with them, so a process of its own loads them. */
import { execFile } from 'node:child_process';
import { dirname, join, sep } from 'node:path';
import { promisify } from 'node:util';
import { type GpuProvider, onnxruntimeLibrary } from './libraries.ts';

const answerMsMax = 60_000;
const known = new Map<GpuProvider, Promise<string | null>>();

/** Why a provider cannot be used; null where it can. Asked once in the life of this process. */
export function providerProblem(provider: GpuProvider): Promise<string | null> {
  const problem = known.get(provider) ?? ask(provider);
  known.set(provider, problem);
  return problem;
}

async function ask(provider: GpuProvider): Promise<string | null> {
  const program = join(import.meta.dirname, 'provider.ts');
  const options = { signal: AbortSignal.timeout(answerMsMax), killSignal: 'SIGKILL' as const };
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [program, provider], options);
    return stdout.trim().replaceAll(dirname(onnxruntimeLibrary) + sep, '') || null;
  } catch (error) {
    const late = (error as { code?: unknown }).code === 'ABORT_ERR';
    const why = late ? `took more than ${answerMsMax / 1000} s` : 'crashed';
    return `The process that loads ONNX Runtime's libraries for ${provider} ${why}: install the versions of CUDA, cuDNN and TensorRT that it needs.`;
  }
}
