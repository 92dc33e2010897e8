/** A thread that makes tensors of images and reads outputs, which takes milliseconds. */
import type { Tensor } from '../../engine/engine.ts';
import { type InputDatatype, preprocess } from '../../vision/preprocess.ts';
import { type Found, type Image, type Outputs, type Reading, read } from '../../vision/reading.ts';
import { trialPicture, trialProblem } from '../../vision/trial.ts';
import { nowMs } from '../clock.ts';
import type { Feed } from '../pool.ts';
import { serveTasks } from '../taskThread.ts';

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

serveTasks(tasks, (answer) =>
  answer !== null && typeof answer === 'object' && 'memory' in answer ? [answer.memory, answer.tensor.data.buffer as ArrayBuffer] : [],
);
