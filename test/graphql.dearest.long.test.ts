/** No document holds the event loop for long: of every list of the schema, and of every list inside it, the dearest document that the limits allow. */
import { expect, test } from 'vitest';
import { schema } from '../src/graphql/schema.ts';
import { dearestDocuments, stretchesOfDocuments } from './support/dearest.ts';
import { withManyRows } from './support/manyRows.ts';

/**
 * With rows as large as they may become. Of an answer of 20 MB the collector of garbage also moves what the last slices made: 20 to 40 ms, on a
 * busy machine up to 75.
 */
const [workMsMax, msMax] = [20, 100];

test('the dearest document of each list, and of each list inside another, holds the event loop for a short time only', () =>
  withManyRows(async (api) => {
    // A trainer makes the pictures.
    const documents = dearestDocuments(schema, 3, new Set(['Query.augmentationPreview']));
    expect(documents.size).toBeGreaterThan(300);
    const stretches = await stretchesOfDocuments(documents, api);
    expect(stretches.filter(({ ms, workMs }) => ms > msMax || workMs > workMsMax)).toEqual([]);
  }));
