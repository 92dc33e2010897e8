/** What the host and its thread for JSON say to each other. */

import type { ServedModel } from '../models.ts';
import type { OutputTensor } from '../pool.ts';
import type { InferRequest, InferResponse, ReadBy, WantedOutput } from '../v2.ts';

export type Work =
  | { type: 'parse'; model: ReadBy; body: Uint8Array; jsonLength: number | undefined }
  | {
      type: 'print';
      model: { config: Pick<ServedModel['config'], 'name' | 'version'> };
      id: string | undefined;
      wanted: WantedOutput[];
      outputs: OutputTensor[];
    };

export type Worked =
  | { type: 'parsed'; request: InferRequest }
  | { type: 'printed'; response: InferResponse }
  | { type: 'refused'; status: number; message: string };
