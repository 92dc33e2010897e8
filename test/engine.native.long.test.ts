import { describe, expect, test } from 'vitest';
import { nativeMissing, runAlone, whyNoNative, withModels } from './support/engines.ts';

const fileOf = withModels(['weights-1', 'weights-100']);

describe.skipIf(nativeMissing !== null)(`the memory of the native runtime${whyNoNative}`, () => {
  test('grows by less than 1 kB for each time that a model of 1 MB is opened and closed', () => {
    const grown = Number(runAlone('nativeMemory.ts', fileOf('weights-1'), 'cycles'));
    expect(grown).toBeLessThan(1000);
  });

  test('with ten runs of a model of 100 MB at once is at most 1.3 times that with one', () => {
    const [one, ten] = ['1', '10'].map((runs) => Number(runAlone('nativeMemory.ts', fileOf('weights-100'), runs))) as [number, number];
    expect(ten / one).toBeLessThanOrEqual(1.3);
  });
});
