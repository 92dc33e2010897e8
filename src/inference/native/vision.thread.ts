/** A thread that makes tensors of images and reads outputs, which takes milliseconds. */
import type { Tensor } from '../../engine/engine.ts';
import { type InputDatatype, preprocessAll } from '../../vision/preprocess.ts';
import { type Found, type Image, type Outputs, type Reading, readEach } from '../../vision/reading.ts';
import { trialPicture, trialProblem } from '../../vision/trial.ts';
import { nowMs } from '../clock.ts';
import type { Feed } from '../pool.ts';
import { serveTasks } from '../taskThread.ts';

type Asked = Pick<Feed, 'datatype' | 'shape'> & { images: readonly Image[] };

interface Prepared {
  tensor: Tensor;
  memory: ArrayBuffer;
  tookMs: number;
}

const tensorOf = ({ datatype, shape, images }: Asked, pixels: Uint8Array): Tensor => ({
  datatype,
  shape,
  // The model was checked for it when it was loaded.
  data: preprocessAll(pixels, images, datatype as InputDatatype),
});

const tasks = {
  /** The tensor of images, whose bytes are in `memory`, which goes back. */
  prepare({ memory, bytes, ...asked }: Asked & { memory: ArrayBuffer; bytes: Uint8Array }): Prepared {
    const startedMs = nowMs();
    const tensor = tensorOf(asked, bytes);
    return { tensor, memory, tookMs: nowMs() - startedMs };
  },
  /** That of the picture which a new model gets. */
  picture: (asked: Asked): Tensor => tensorOf(asked, trialPicture()),
  read: ({ readings, outputs }: { readings: readonly Reading[]; outputs: Outputs }): Found[] | null => readEach(readings, outputs),
  /** Why `predict` would answer with nonsense; null where it would not. */
  judge: ({ reading, outputs }: { reading: Reading; outputs: Outputs }): string | null => trialProblem(reading, outputs),
};
export type VisionTasks = typeof tasks;

serveTasks(tasks, (answer) =>
  answer !== null && typeof answer === 'object' && 'memory' in answer ? [answer.memory, answer.tensor.data.buffer as ArrayBuffer] : [],
);
