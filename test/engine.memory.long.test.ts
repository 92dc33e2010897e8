import { describe, expect, test } from 'vitest';
import { nativeMissing, openvinoMissing, runAlone, withModels } from './support/engines.ts';

const fileOf = withModels(['weights-1', 'weights-100']);

describe.each([
  ['ONNXRUNTIME_CPU', null],
  ['ONNXRUNTIME_NATIVE', nativeMissing],
  ['OPENVINO', openvinoMissing],
] as const)('the memory of %s', (engine, missing) => {
  const it = test.skipIf(missing !== null);
  const why = missing === null ? '' : ` (skipped: ${missing})`;

  it(`grows by less than 1 kB for each time that a model of 1 MB is opened and closed${why}`, () => {
    const grown = Number(runAlone('engineMemory.ts', engine, fileOf('weights-1'), 'cycles'));
    console.log(`${engine}: ${grown.toFixed(0)} bytes for each of the last 5,000 of 10,000 times`);
    expect(grown).toBeLessThan(1000);
  });

  // onnxruntime-node leaves freed memory to the allocator, which keeps it.
  test.skipIf(missing !== null || engine === 'ONNXRUNTIME_CPU')(`is given back by four closed models of 100 MB${why}`, () => {
    const grown = Number(runAlone('engineMemory.ts', engine, fileOf('weights-100'), 'closed'));
    console.log(`${engine}: ${(grown / 1e6).toFixed(0)} MB more than before, its library included`);
    expect(grown).toBeLessThan(100e6);
  });

  // A session of onnxruntime-node computes one run at a time.
  test.skipIf(missing !== null || engine === 'ONNXRUNTIME_CPU')(
    `with ten runs of a model of 100 MB at once is at most 1.3 times that with one${why}`,
    () => {
      const peakOf = (runs: number) => Number(runAlone('engineMemory.ts', engine, fileOf('weights-100'), String(runs)));
      const [one, ten] = [peakOf(1), peakOf(10)];
      console.log(
        `${engine}: ${(one / 1e6).toFixed(0)} MB with one run, ${(ten / 1e6).toFixed(0)} MB with ten: ${(ten / one).toFixed(2)} times`,
      );
      expect(ten / one).toBeLessThanOrEqual(1.3);
    },
  );
});
