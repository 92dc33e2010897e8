import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createDatasetMutation, imported, uploaded } from './support/datasetServer.ts';
import { digitFolders, zipOf } from './support/images.ts';
import { withServer } from './support/server.ts';

const classes = await digitFolders([0, 1], 5);

const whole = `query ($after: String) {
  dataset(name: "digits") {
    name task notes createdByName
    versions { nodes { number } }
    version {
      id number state contentHash splitSeed sizeBytes duplicatesAcrossSplits downloadUrl manifestUrl deletedAt
      dataset { name }
      counts { total train val test }
      classes { index name counts { total val } }
      job { kind state failure { code } }
      items(first: 2, after: $after, split: TRAIN, class: "1") {
        nodes { id index split class path sha256 width height thumbnailUrl }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}`;

test('a zip becomes a dataset that can be browsed, seen and downloaded', () =>
  withServer(async (server) => {
    const engineer = await server.as('ENGINEER');
    const zip = zipOf(classes);
    const made = await imported(server, engineer, zip, { notes: 'real digits' });
    expect(made.datasetVersion).toMatchObject({ number: 1, state: 'IMPORTING' });

    const viewer = await server.as('VIEWER');
    const { data, errors } = await server.graphql(whole, {}, viewer);
    expect(errors).toBeUndefined();
    const { version, ...dataset } = data.dataset;
    expect(dataset).toEqual({
      name: 'digits',
      task: 'CLASSIFICATION',
      notes: 'real digits',
      createdByName: 'engineer',
      versions: { nodes: [{ number: 1 }] },
    });
    expect(version).toMatchObject({
      id: made.datasetVersion.id,
      state: 'READY',
      splitSeed: 0,
      duplicatesAcrossSplits: 0,
      deletedAt: null,
      dataset: { name: 'digits' },
      counts: { total: 10, train: 8, val: 2, test: 0 },
      classes: [
        { index: 0, name: '0', counts: { total: 5, val: 1 } },
        { index: 1, name: '1', counts: { total: 5, val: 1 } },
      ],
      job: { kind: 'IMPORT_DATASET', state: 'SUCCEEDED', failure: null },
    });
    const [item] = version.items.nodes;
    expect(item).toMatchObject({ split: 'TRAIN', class: '1', path: expect.stringMatching(/^1\/\d\.png$/), width: 28, height: 28 });
    expect(item.sha256).toBe(
      createHash('sha256')
        .update(classes[item.path] as Buffer)
        .digest('hex'),
    );

    expect(version.items.pageInfo.hasNextPage).toBe(true);
    const next = (await server.graphql(whole, { after: version.items.pageInfo.endCursor }, viewer)).data.dataset.version.items;
    expect(next.nodes.map((n: { index: number }) => n.index)).toEqual([item.index + 2, item.index + 3]);
    expect(next.pageInfo.hasNextPage).toBe(false);

    const fetched = async (url: string) => fetch(new URL(url, server.url));
    const thumbnail = await fetched(item.thumbnailUrl);
    expect(thumbnail.headers.get('content-type')).toBe('image/webp');
    expect(Buffer.from(await thumbnail.arrayBuffer()).toString('latin1')).toMatch(/^RIFF.{4}WEBP/s);
    const manifest = (await (await fetched(version.manifestUrl)).text()).trimEnd().split('\n');
    expect(JSON.parse(manifest[item.index] as string)).toMatchObject({ n: item.index, path: item.path, sha256: item.sha256 });
    expect(Buffer.from(await (await fetched(version.downloadUrl)).arrayBuffer())).toEqual(zip);

    const query = 'query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }';
    const ids = [made.dataset.id, version.id, item.id];
    expect((await server.graphql(query, { ids }, viewer)).data.nodes).toEqual(
      ['Dataset', 'DatasetVersion', 'DatasetItem'].map((__typename, i) => ({ __typename, id: ids[i] })),
    );
  }));

test('a zip with a bad file fails with its name, and gives the name of its dataset back', () =>
  withServer(async (server) => {
    const token = await server.as('ENGINEER');
    const { datasetVersion } = await imported(server, token, { ...classes, '0/bad.png': 'no image' });
    const query = `query ($id: ID!) {
      dataset(name: "digits") { id }
      node(id: $id) { ... on DatasetVersion {
        state counts { total } classes { name } items { nodes { id } } leftOut { count } manifestUrl dataset { name } job { failure { code message } }
      } }
    }`;
    const { dataset, node } = (await server.graphql(query, { id: datasetVersion.id }, token)).data;
    expect(dataset).toBeNull();
    expect(node).toEqual({
      state: 'FAILED',
      counts: null,
      classes: [],
      items: { nodes: [] },
      leftOut: null,
      manifestUrl: null,
      dataset: { name: 'digits' },
      job: {
        failure: {
          code: 'DATA_INVALID',
          message: expect.stringMatching(
            /^1 file cannot be used as an image\. .*\n0\/bad\.png: is not a JPEG, PNG, WebP, TIFF or BMP image$/,
          ),
        },
      },
    });
  }));

describe('datasets', () => {
  test('are listed, renamed and deleted', () =>
    withServer(async (server) => {
      const token = await server.admin();
      for (const name of ['b', 'a', 'c']) await imported(server, token, classes, { name });
      const list = async (args: string) =>
        (await server.graphql(`{ datasets${args} { nodes { id name } pageInfo { hasNextPage endCursor } } }`, {}, token)).data.datasets;
      const names = async (args = '') => (await list(args)).nodes.map(({ name }: { name: string }) => name);
      expect(await names()).toEqual(['a', 'b', 'c']);
      expect(await names('(orderBy: CREATED_AT, filter: { task: CLASSIFICATION })')).toEqual(['c', 'a', 'b']);
      expect(await names('(filter: { nameContains: "B" })')).toEqual(['b']);
      const first = await list('(first: 2)');
      expect(await names(`(after: "${first.pageInfo.endCursor}")`)).toEqual(['c']);

      const [{ id }] = first.nodes;
      const update = 'mutation ($i: UpdateDatasetInput!) { updateDataset(input: $i) { dataset { name notes } userErrors { code field } } }';
      const changed = await server.graphql(update, { i: { datasetId: id, name: 'd', notes: 'new' } }, token);
      expect(changed.data.updateDataset).toEqual({ dataset: { name: 'd', notes: 'new' }, userErrors: [] });
      const taken = await server.graphql(update, { i: { datasetId: id, name: 'c' } }, token);
      expect(taken.data.updateDataset).toEqual({ dataset: null, userErrors: [{ code: 'TAKEN', field: ['name'] }] });

      const version = (await server.graphql('{ dataset(name: "b") { version { id } } }', {}, token)).data.dataset.version;
      const deleteVersion =
        'mutation ($i: DeleteDatasetVersionInput!) { deleteDatasetVersion(input: $i) { datasetVersion { deletedAt contentHash downloadUrl } userErrors { code } } }';
      const gone = await server.graphql(deleteVersion, { i: { datasetVersionId: version.id } }, token);
      expect(gone.data.deleteDatasetVersion).toEqual({
        datasetVersion: { deletedAt: expect.any(String), contentHash: expect.any(String), downloadUrl: null },
        userErrors: [],
      });
      const deleted = await server.graphql(
        'mutation ($i: DeleteDatasetInput!) { deleteDataset(input: $i) { dataset { name } userErrors { code } } }',
        { i: { datasetId: id } },
        token,
      );
      expect(deleted.data.deleteDataset).toEqual({ dataset: { name: 'd' }, userErrors: [] });
      expect(await names()).toEqual(['b', 'c']);
    }));

  test('a name has letters of any script, and is the same however its accents are written', () =>
    withServer(async (server) => {
      const token = await server.as('ENGINEER');
      const made = await imported(server, token, classes, { name: 'Früchte-水果'.normalize('NFD') });
      expect(made.dataset.name).toBe('Früchte-水果');
      const { data } = await server.graphql(
        'query ($n: String!) { dataset(name: $n) { name } }',
        { n: 'Früchte-水果'.normalize('NFD') },
        token,
      );
      expect(data.dataset).toEqual({ name: 'Früchte-水果' });
    }));

  test('a wrong input is told with its field', () =>
    withServer(async (server) => {
      const token = await server.as('ENGINEER');
      const upload = await uploaded(server, token, zipOf(classes));
      const input = { name: 'not a name', task: 'CLASSIFICATION', ...upload, valShare: -1 };
      const { data } = await server.graphql(createDatasetMutation, { i: input }, token);
      expect(data.createDataset).toMatchObject({
        dataset: null,
        datasetVersion: null,
        userErrors: [
          {
            code: 'INVALID',
            field: ['name'],
            message: expect.stringMatching(/^"not a name" is not possible: a name has 1 to 100 .* no spaces/),
          },
          { code: 'INVALID', field: ['valShare'], message: 'A share is at least 0.' },
        ],
      });
    }));
});
