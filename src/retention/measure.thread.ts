import '../loading.ts';
import { parentPort, workerData } from 'node:worker_threads';

// Imported here, not at the top: `loading.ts` concerns what is loaded after it.
const { measureStores } = await import('./measure.ts');
parentPort?.postMessage(await measureStores(workerData.config, workerData.days));
