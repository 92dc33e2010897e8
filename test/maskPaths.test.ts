import { expect, test } from 'vitest';
import { maskPaths } from '../src/maskPaths.ts';

test.each([
  ['cannot open /data/blobs/ab/cd: no such file', 'cannot open cd: no such file'],
  ['load failed:/src/core/load.h:46 refused', 'load failed:load.h:46 refused'],
  ['a shape of 3/4 and https://pytorch.org/a/b stay', 'a shape of 3/4 and https://pytorch.org/a/b stay'],
])('no folder of a machine is in a message: %s', (text, masked) => expect(maskPaths(text)).toBe(masked));
