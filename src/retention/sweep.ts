import { removedBefore } from './measure.ts';
import { type Store, type SweepServices, stores } from './stores.ts';

/** What removes that which is due of each store: to be called at the start, and now and then. */
export const retentionSweeps = (services: SweepServices): Record<string, () => Promise<void>> =>
  Object.fromEntries(
    Object.entries<Store>(stores).flatMap(([name, store]) =>
      store.remove
        ? [
            [
              name,
              async () => {
                const before = removedBefore(store, services.config);
                if (before !== null) await store.remove?.(services, before);
              },
            ],
          ]
        : [],
    ),
  );
