/** The script of docs/automation.md as it stands there: what it deploys, and what it leaves. */
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sql } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { digitFolders } from './support/images.ts';
import { codeBlocks } from './support/markdown.ts';
import { withFolder, withServer } from './support/server.ts';
import { ask, datasetVersionOf, mutate } from './support/training.ts';

const document = readFileSync(join(import.meta.dirname, '..', 'docs', 'automation.md'), 'utf8');

test('the nightly script deploys the first version, keeps what serves over a worse one, and measures it again on new images', () =>
  withFolder((folder) =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.as('ENGINEER') };
      const key = { name: 'nightly', scopes: ['READ', 'RUN_JOBS', 'DEPLOY'] };
      const { secret, apiKey } = await mutate(api, 'createApiKey', key, 'secret apiKey { id }');
      const script = join(folder, 'nightly.py');
      const block = codeBlocks(document).find(({ info }) => info === 'python nightly.py');
      writeFileSync(script, (block?.text ?? '').replace('http://127.0.0.1:8080', server.url));
      const night = async (token = secret as string) => {
        const env = { PATH: process.env.PATH, WHETSTONE_TOKEN: token };
        const { stdout } = await promisify(execFile)('python3', [script], { env });
        return stdout.trim();
      };
      const serving = async () => {
        const query = '{ deployment(name: "fruit") { active { modelVersion { id number } } revisions { number } } }';
        const { active, revisions } = (await ask(api, query)).data.deployment;
        return { ...active.modelVersion, revisions: revisions.length };
      };
      const evaluations = async (id: string): Promise<{ top1: number; datasetVersion: { number: number } }[]> => {
        const query = 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { evaluations { top1 datasetVersion { number } } } } }';
        return (await ask(api, query, { id })).data.node.evaluations;
      };

      await datasetVersionOf(api, 'fruit', await digitFolders([0, 1], 12));
      expect(await night()).toMatch(/^Version 2 has top1 [01]\.\d{4} and serves now\.$/);
      const first = await serving();
      expect(first).toMatchObject({ number: 2, revisions: 1 });

      // No training reaches this.
      server.services.db.run(sql`UPDATE evaluation SET metricsJson = json_set(metricsJson, '$.top1', 1.5)`);
      expect(await night()).toMatch(/^Version 4 has top1 [01]\.\d{4}, version 2 has 1\.5000 and serves on\.$/);
      expect(await serving()).toEqual(first);

      await datasetVersionOf(api, 'fruit', await digitFolders([0, 1], 14));
      const said = await night();
      const again = (await evaluations(first.id)).filter(({ datasetVersion }) => datasetVersion.number === 2);
      expect(again, 'what serves was measured on the new images').toHaveLength(1);
      expect(said).toContain(again[0]?.top1.toFixed(4));
      expect((await serving()).number).toBe(said.includes('serves now') ? 6 : 2);

      await mutate(api, 'revokeApiKey', { apiKeyId: apiKey.id }, 'apiKey { id }');
      await expect(night()).rejects.toMatchObject({
        code: 1,
        stderr: expect.stringContaining('The API key is wrong, has expired or was revoked'),
      });
    }),
  ));
