/** One more instance of a cell's model, on a thread of its own (`instances.ts`). */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { Feeds } from '../engine/engine.ts';
import { engines } from '../engine/engines.ts';
import { feedsOf, load } from './inputs.ts';
import { type FromInstance, type InstanceData, shared, stream, type ToInstance, warmUpSome } from './instances.ts';

const { shared: memory, engine, file, intraOpThreads, inputs, probe, seed, feeds: count } = workerData as InstanceData;
const port = parentPort as MessagePort;
const say = (message: FromInstance): void => port.postMessage(message);

const loaded = await load(await engines[engine].load(), file, { intraOpThreads });
if ('problem' in loaded) say(loaded);
else {
  const { session } = loaded;
  const feeds = feedsOf(inputs, probe, seed, count);
  const first = feeds[0] as Feeds;
  port.on('message', async (message: ToInstance) => {
    if (message.do === 'warm') {
      while (Atomics.load(memory, shared.generation) < message.until) await warmUpSome(session, feeds, 0);
      say('warm');
    } else if (message.do === 'block') {
      await session.run(first);
      say('ready');
      Atomics.wait(memory, shared.generation, message.after);
      say(await stream(session, feeds, memory, message.asked, () => {}));
    } else {
      await session.close();
      port.close();
    }
  });
  say('loaded');
}
