import { seededBytes } from '../benchmark/inputs.ts';

/**
 * When requests arrive in a window of so many seconds, in milliseconds from its start: a Poisson process, whose gaps are exponential. The
 * same rate and seed give the same times; a longer window begins with those of a shorter one.
 */
export function arrivalsOf(perSecond: number, seconds: number, seed: number): Float64Array<ArrayBuffer> {
  const expected = perSecond * seconds;
  // More than ten standard deviations: the window ends before these.
  const drawn = Math.ceil(expected + 10 * Math.sqrt(expected) + 20);
  const bytes = seededBytes(`arrivals ${seed} ${perSecond}`, 4 * drawn);
  const times = new Float64Array(drawn);
  let at = 0;
  for (let i = 0; i < drawn; i += 1) {
    const uniform = (bytes.readUInt32LE(4 * i) + 0.5) / 2 ** 32;
    at += (-Math.log(uniform) / perSecond) * 1000;
    if (at >= 1000 * seconds) return times.slice(0, i);
    times[i] = at;
  }
  return times;
}
