/** The dashboard, the alerts and the metrics themselves, as the real Prometheus sees them. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { item } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, withHost } from './support/inference.ts';
import { freePort, withChild } from './support/process.ts';
import { expressions } from './support/prometheus.ts';
import { withFolder, withServer } from './support/server.ts';

const deploy = join(import.meta.dirname, '..', 'deploy', 'prometheus');
const isThere = spawnSync('promtool', ['--version']).status === 0;
const missing = isThere ? '' : ' (skipped: prometheus is not installed)';
let host = '';
withHost({ models: [{ name: 'echo', model: 'identity' }] }, ({ url }) => {
  host = url;
});
beforeAll(async () => {
  await inferJson(host, 'echo', item(1));
});

test.skipIf(missing)(`promtool takes the rules and the configuration${missing}`, () => {
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'config', join(deploy, 'prometheus.yml')], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toContain('15 rules found');
});

test.skipIf(missing)(`promtool finds nothing wrong with the metrics${missing}`, () =>
  withServer(async ({ url, admin }) => {
    await admin();
    for (const one of [url, host]) {
      const input = await (await fetch(`${one}/metrics`)).text();
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' });
      expect([stdout, stderr, status]).toEqual(['', '', 0]);
    }
  }),
);

test.skipIf(missing)(`a real Prometheus answers every query of the dashboard and judges every alert${missing}`, () =>
  withServer(async ({ url, admin }) =>
    withFolder(async (folder) => {
      await admin();
      const config = readFileSync(join(deploy, 'prometheus.yml'), 'utf8')
        .replaceAll('15s', '1s')
        .replace('127.0.0.1:8080', new URL(url).host)
        .replace('127.0.0.1:8000', new URL(host).host);
      writeFileSync(join(folder, 'prometheus.yml'), config);
      copyFileSync(join(deploy, 'alerts.yml'), join(folder, 'alerts.yml'));
      const address = `127.0.0.1:${await freePort()}`;
      const args = [`--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=${address}`];
      const ask = async (path: string) => (await fetch(`http://${address}/api/v1/${path}`)).json();
      await withChild(
        args,
        {},
        async () => {
          // A rate needs two scrapes.
          await eventually(async () => {
            const { data } = await ask(`query?query=${encodeURIComponent('count_over_time(up[1m]) >= 3')}`);
            expect(data.result).toHaveLength(2);
          });
          for (const expression of expressions()) {
            await inferJson(host, 'echo', item(1));
            const { status, error } = await ask(`query?query=${encodeURIComponent(expression)}`);
            expect([status, error], expression).toEqual(['success', undefined]);
          }
          await eventually(async () => {
            const { data } = await ask('rules?type=alert');
            const rules = data.groups.flatMap(({ rules }: { rules: { health: string; name: string }[] }) => rules);
            expect(rules).toHaveLength(15);
            for (const { health, name } of rules) expect([name, health]).toEqual([name, 'ok']);
          });
        },
        'prometheus',
      );
    }),
  ),
);
