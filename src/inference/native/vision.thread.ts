/** A thread of `vision.ts`. It does one thing after the other. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import type { Tensor } from '../../engine/engine.ts';
import { type InputDatatype, preprocess } from '../../vision/preprocess.ts';
import { type Found, type Image, type Outputs, type Reading, read } from '../../vision/reading.ts';
import { trialPicture, trialProblem } from '../../vision/trial.ts';
import { nowMs } from '../clock.ts';
import type { Feed } from '../pool.ts';
import { giveWay } from '../priority.ts';

type Asked = Pick<Feed, 'datatype' | 'shape'> & { image: Image };

interface Prepared {
  tensor: Tensor;
  memory: ArrayBuffer;
  tookMs: number;
}

const tensorOf = ({ datatype, shape, image }: Asked, pixels: Uint8Array): Tensor => ({
  datatype,
  shape,
  // The model was checked for it when it was loaded.
  data: preprocess(pixels, image.width, image.height, image.preprocess, datatype as InputDatatype),
});

const tasks = {
  /** The tensor of an image, whose bytes are in `memory`, which goes back. */
  prepare({ memory, bytes, ...asked }: Asked & { memory: ArrayBuffer; bytes: Uint8Array }): Prepared {
    const startedMs = nowMs();
    const tensor = tensorOf(asked, bytes);
    return { tensor, memory, tookMs: nowMs() - startedMs };
  },
  /** That of the picture which a new model gets. */
  picture: (asked: Asked): Tensor => tensorOf(asked, trialPicture()),
  read: ({ reading, outputs }: { reading: Reading; outputs: Outputs }): Found => read(reading, outputs),
  /** Why `predict` would answer with nonsense; null where it would not. */
  judge: ({ reading, outputs }: { reading: Reading; outputs: Outputs }): string | null => trialProblem(reading, outputs),
};
export type VisionTasks = typeof tasks;
export type VisionRequest = { task: keyof VisionTasks; request: Parameters<VisionTasks[keyof VisionTasks]>[0] };
export type VisionReply = { answer: unknown } | { message: string };

giveWay();
const port = parentPort as MessagePort;
const say = (reply: VisionReply, transfer: ArrayBuffer[] = []): void => port.postMessage(reply, transfer);
port.on('message', (message: VisionRequest | null) => {
  if (!message) return port.close();
  try {
    const answer = (tasks[message.task] as (request: unknown) => unknown)(message.request);
    if (message.task !== 'prepare') return say({ answer });
    const { memory, tensor } = answer as Prepared;
    say({ answer }, [memory, tensor.data.buffer as ArrayBuffer]);
  } catch (error) {
    say({ message: (error as Error).message });
  }
});
