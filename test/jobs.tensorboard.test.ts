import { expect, test } from 'vitest';
import { eventFile } from '../src/jobs/tensorboard.ts';

/** What TensorBoard's own `RecordWriter` and `Event` have written of these curves. */
const written =
  'GAAAAAAAAACjf0siCQAAAED8VNlBGg1icmFpbi5FdmVudDoy7O2PnR4AAAAAAAAA2dwSMgkAAGBA/FTZQRAGKhEKDwoIdmFsLnRvcDEVAAAAP9kJOP8fAAAAAAAAAFFLRBgJAAAAQPxU' +
  '2UEQrAIqEQoPCgh2YWwudG9wMRUAAEA/NLCl1CAAAAAAAAAAKe2pUAkAAGBA/FTZQRAGKhMKEQoKdHJhaW4ubG9zcxUAAKA/2l9/eQ==';

test('curves become the bytes that TensorBoard itself would write', async () => {
  const curves = [
    {
      name: 'val.top1',
      points: [
        { step: 6, epoch: 1, value: 0.5 },
        { step: 300, epoch: 2, value: 0.75 },
      ],
    },
    { name: 'train.loss', points: [{ step: 6, epoch: 1, value: 1.25 }] },
  ];
  const file = await eventFile({}, curves, 1_700_000_000_000, new Map([[6, 1_700_000_001_500]]));
  expect(file.toString('base64')).toBe(written);
});
