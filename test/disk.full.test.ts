/**
 * The disk of the data folder becomes full wherever something is written to it. Nothing fails for good, nothing is charged, what waits
 * says why, and all continues without a restart when there is room.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { user as account, audit, session } from '../src/accounts/tables.ts';
import { createBus } from '../src/bus.ts';
import { readConfig } from '../src/config.ts';
import { imageFiles } from '../src/datasets/imageFiles.ts';
import { importDataset } from '../src/datasets/import/kind.ts';
import { type DatasetVersion, datasetVersion } from '../src/datasets/tables.ts';
import { inTransaction, openDatabase } from '../src/db.ts';
import type { JobKinds } from '../src/jobs/kinds.ts';
import { openLog } from '../src/jobs/logs.ts';
import { job, jobEvent } from '../src/jobs/tables.ts';
import { createLog } from '../src/log.ts';
import { insertModel } from '../src/models/models.ts';
import { keepReserve } from '../src/reserve.ts';
import { retentionSweeps } from '../src/retention/sweep.ts';
import { collectBlobs, placingBlobs, storeFile } from '../src/storage/blobs.ts';
import { cleanStaging } from '../src/storage/uploads.ts';
import { createDatasetMutation, imported } from './support/datasetServer.ts';
import { forgetImages } from './support/datasets.ts';
import { by, deploymentOf, health, hostPid, item } from './support/deployments.ts';
import { yolo } from './support/detection.ts';
import { eventually } from './support/eventually.ts';
import { digitFolders, photo, zipOf } from './support/images.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import { submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { makeRoom, waiting, withServerOnDisk } from './support/onDisk.ts';
import { withChild } from './support/process.ts';
import { adminName, adminPassword, postGraphql, type TestServer, withFolder, withServer } from './support/server.ts';
import { fillDisk, fillNames, mebibyte, unmountable, withSmallDisk } from './support/smallDisk.ts';
import { append, blobsOf, bytesOf, create, post, send, sha256, sizeOf, stagingOf, tus, until } from './support/storage.ts';
import { type Api, ask, jobWhen, modelVersionOf, mutate, succeeded, uploaded } from './support/training.ts';

const title = (what: string) => `${what} ${unmountable ?? ''}`;

const onSmallDisk = (use: (server: TestServer, api: Api) => Promise<unknown>, kinds?: JobKinds) =>
  withServerOnDisk(64 * mebibyte, use, kinds);

describe.skipIf(unmountable)('where the disk is full', () => {
  const createUser = 'mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } userErrors { code message } } }';
  const user = (name: string) => ({ input: { name, password: 'a long enough password', role: 'VIEWER' } });

  test(title('a server says so in one sentence and does not start; with its reserve it starts'), () =>
    withSmallDisk(16 * mebibyte, async (dataDir) => {
      const start = (
        use: Parameters<typeof withChild>[2] = async (child) => void (await child.line((line) => line.includes('is ready'))),
      ) => withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir }, use);
      const free = fillDisk(dataDir);
      await start(async (child) => {
        expect((await child.exit).code).toBe(1);
        expect(child.lines.join('\n')).toMatch(/^The (disk of the )?data folder \S+ \(WHETSTONE_DATA_DIR\) .*\.$/);
      });
      free();
      await start(async (child) => {
        await child.line((line) => line.includes('is ready'));
        child.kill('SIGTERM');
        expect((await child.exit).code).toBe(0);
      });
      expect(existsSync(join(dataDir, 'whetstone.db-wal'))).toBe(false);
      expect(existsSync(join(dataDir, 'reserve'))).toBe(true);
      fillDisk(dataDir);
      await start();
    }),
  );

  test(title('a first start that has some room, but not enough, is one sentence too, and the next one with more room works'), () =>
    withSmallDisk(mebibyte, async (dataDir) => {
      const env = { WHETSTONE_DATA_DIR: dataDir };
      const says: string[] = [];
      for (let kibibytes = 32; ; kibibytes += 32) {
        execFileSync('mount', ['-o', `remount,size=${kibibytes}k`, dataDir]);
        const started = await withServer(async () => 'started', env).catch(({ message }) => message as string);
        if (started === 'started') break;
        says.push(started);
      }
      expect(says.length).toBeGreaterThan(3);
      for (const one of says)
        expect(one).toMatch(/^The disk of the data folder \S+ \(WHETSTONE_DATA_DIR\) is full\. Free some space, then start again\.$/);
    }),
  );

  test(title('people write until there is a retryable DISK_FULL; they log in, delete and cancel all the same, whatever jobs write'), () => {
    const warnings = { steps: ['hello' as const, { wait: 'go' }, { warnings: 9000, characters: 1000 }, 'ok' as const] };
    return onSmallDisk(async (server, api) => {
      const { dataDir, graphql, login, services } = server;
      const { db, bus } = services;
      const token = await server.admin();
      const { id: modelId } = inTransaction(db, (tx) =>
        insertModel(tx, { name: 'm', task: 'CLASSIFICATION', notes: '', createdById: null }),
      );
      const { id } = submit(db, { folder: dataDir, ...warnings });
      bus.wake('queueChanged', '');
      const eventsOf = () => db.select({ seq: jobEvent.seq }).from(jobEvent).where(eq(jobEvent.jobId, id)).all().length;
      const free = fillDisk(dataDir, mebibyte);
      // A file of no bytes.
      writeFileSync(join(dataDir, 'go'), '');
      const writes = vi.spyOn(db.$client, 'transaction');
      await eventually(async () => {
        const [stored, tries] = [eventsOf(), writes.mock.calls.length];
        await vi.waitUntil(() => writes.mock.calls.length > tries + 1, { timeout: 10_000, interval: 10 });
        expect(stored).toBeGreaterThan(10);
        expect(eventsOf()).toBe(stored);
      });
      writes.mockRestore();
      // What has been written once is written again without new room, so it takes more than one write to reach the end.
      let refused: Awaited<ReturnType<typeof graphql>> | undefined;
      for (let n = 0; n < 500 && !refused?.errors; n += 1) refused = await graphql(createUser, user(`user${n}`), token);
      expect(refused?.errors?.[0].extensions).toMatchObject({ code: 'DISK_FULL', retryable: true });
      expect((await fetch(`${server.url}/ready`)).status).toBe(503);

      const { accessToken, refreshToken } = await login(adminName, adminPassword);
      expect((await graphql('{ viewer { name } }', {}, accessToken)).data.viewer.name).toBe(adminName);
      const refresh = 'mutation ($i: RefreshInput!) { refresh(input: $i) { credentials { accessToken } } }';
      expect((await graphql(refresh, { i: { refreshToken } })).errors).toBeUndefined();
      // The reserve is for these only, also once it has been given.
      expect((await graphql(createUser, user('bob'), token)).errors?.[0].extensions.code).toBe('DISK_FULL');
      const globalId = (type: string, raw: string) => Buffer.from(`${type}:${raw}`).toString('base64url');
      await mutate({ url: server.url, token }, 'deleteModel', { modelId: globalId('Model', modelId) }, 'model { name }');
      await mutate(api, 'cancelJob', { jobId: globalId('Job', id) }, 'job { state }');
      await eventually(() => expect(db.select().from(job).where(eq(job.id, id)).get()?.state).toBe('CANCELLED'));

      free();
      expect((await graphql(createUser, user('carol'), token)).data.createUser.userErrors).toEqual([]);
      expect(existsSync(join(dataDir, 'reserve'))).toBe(true);
    }, kindsOf(scripted));
  });

  test(title('a server whose log is on that disk goes on, counts the lines that it could not write, and stops with exit 0'), () =>
    withSmallDisk(4 * mebibyte, (logDir) =>
      withFolder(async (dataDir) => {
        const log = join(logDir, 'log');
        /** The whole ones: the line that met the end of the disk is cut. */
        const lines = () =>
          readFileSync(log, 'utf8')
            .split('\n')
            .flatMap((line) => {
              try {
                return [JSON.parse(line)];
              } catch {
                return [];
              }
            });
        const env = { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir };
        await withChild(
          ['-c', `exec "$0" src/main.ts serve >> "${log}"`, process.execPath],
          env,
          async (server) => {
            const { url } = await eventually(() => lines().find(({ url: found }) => found) ?? expect.fail('not ready yet'));
            const free = fillDisk(logDir);
            for (let n = 0; n < 50; n += 1) expect((await postGraphql(url, '{ __typename }')).status).toBe(200);
            free();
            expect((await postGraphql(url, '{ __typename }')).status).toBe(200);
            await eventually(() => expect(lines().some(({ dropped }) => dropped > 0)).toBe(true));
            server.kill('SIGTERM');
            expect(await server.exit).toEqual({ code: 0, signal: null });
            expect(lines().some(({ msg }) => msg === 'stopping')).toBe(true);
          },
          '/bin/sh',
        );
      }),
    ),
  );

  test(title('the log of a job loses lines, and goes on with the next number'), () =>
    withSmallDisk(mebibyte, async (folder) => {
      const log = await openLog(folder, 'a job');
      const write = (text: string) => log.write({ at: 5, attemptNumber: 1, stream: 'stdout', text });
      const free = fillDisk(folder, 4096);
      let n = 0;
      while (write('x'.repeat(1000))) n += 1;
      expect(n).toBeGreaterThan(1);
      free();
      expect(write('after')?.n).toBe(n + 1);
      log.close();
    }),
  );

  test(title('an upload is 507, its bytes so far stay, reads work, and it goes on'), () =>
    onSmallDisk(async ({ dataDir, graphql }, { url, token }) => {
      const ready = async () => (await send({ method: 'GET', address: `${url}/ready` })).status;
      const bytes = bytesOf('disk', 12 * mebibyte);
      const { address, id } = await create(url, token, bytes.length);
      const file = join(dataDir, 'uploads', id);
      let free = () => {};
      const fill = async () => {
        await until(() => sizeOf(file) === 2 * mebibyte);
        free = fillDisk(dataDir, 1.5 * mebibyte);
      };
      const rest = Array.from({ length: 10 }, (_, n) => bytes.subarray((2 + n) * mebibyte, (3 + n) * mebibyte));
      const full = await append(address, token, 0, [bytes.subarray(0, 2 * mebibyte), fill, ...rest], bytes.length);
      expect([full.status, full.json.errors[0].extensions]).toMatchObject([507, { code: 'DISK_FULL', retryable: true }]);

      const offset = sizeOf(file);
      expect(offset).toBeGreaterThan(2 * mebibyte);
      expect(offset).toBeLessThan(4 * mebibyte);
      expect(readFileSync(file).equals(bytes.subarray(0, offset))).toBe(true);
      expect((await tus('HEAD', address, token)).headers['upload-offset']).toBe(String(offset));
      expect((await append(address, token, offset, [bytes.subarray(offset)], bytes.length - offset)).status).toBe(507);
      expect((await graphql('{ viewer { name } }', {}, token)).data.viewer.name).toBe('engineer');
      expect((await send({ method: 'GET', address, token })).json.state).toBe('OPEN');
      expect(await ready()).toBe(503);
      // In one request, without tus.
      const another = await post(url, token, 'b.zip', bytes);
      expect([another.status, another.json.errors[0].extensions.code]).toEqual([507, 'DISK_FULL']);
      expect(stagingOf(dataDir)).toEqual([id]);

      free();
      expect(await ready()).toBe(200);
      const now = Number((await tus('HEAD', address, token)).headers['upload-offset']);
      expect((await append(address, token, now, [bytes.subarray(now)], bytes.length - now)).status).toBe(204);
      expect((await send({ method: 'GET', address, token })).json).toMatchObject({ state: 'COMPLETE', sha256: sha256(bytes) });
      expect((await post(url, token, 'b.zip', bytes)).json.sha256).toBe(sha256(bytes));
    }),
  );

  test(title('an upload whose last byte takes the last room is complete when there is room again'), () =>
    onSmallDisk(async ({ dataDir }, { url, token }) => {
      const bytes = bytesOf('last', 2 * mebibyte);
      const { address, id } = await create(url, token, bytes.length);
      let free = () => {};
      const fill = async () => {
        await until(() => sizeOf(join(dataDir, 'uploads', id)) === bytes.length - 1);
        free = fillDisk(dataDir);
      };
      expect((await append(address, token, 0, [bytes.subarray(0, -1), fill, bytes.subarray(-1)], bytes.length)).status).toBe(507);
      free();
      expect((await tus('HEAD', address, token)).headers['upload-offset']).toBe(String(bytes.length));
      expect((await send({ method: 'GET', address, token })).json).toMatchObject({ state: 'COMPLETE', sha256: sha256(bytes) });
    }),
  );

  test(title('a dataset waits, and is imported when there is room'), () =>
    onSmallDisk(async (server, api) => {
      const upload = await uploaded(api, 'digits.zip', zipOf(await digitFolders([0, 1, 2, 3], 100)));
      // Room for the rows of the job, not for its 400 images.
      const free = fillDisk(server.dataDir, 700 * 1024);
      const { data } = await ask(api, createDatasetMutation, { i: { name: 'digits', task: 'CLASSIFICATION', ...upload } });
      const { id } = data.createDataset.datasetVersion.job;
      await waiting(api, id);
      makeRoom(server, free);
      await succeeded(api, id);
    }),
  );

  test(title('a dataset of an earlier version is downloaded when there is room'), () =>
    onSmallDisk(async (server, api) => {
      await imported(server, api.token, yolo(), { name: 'rings', task: 'DETECTION' });
      const { data } = await ask(api, '{ dataset(name: "rings") { version { exportUrl(form: COCO) } } }');
      const download = async () => {
        const response = await fetch(new URL(data.dataset.version.exportUrl, api.url));
        return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
      };
      const before = await download();
      expect(before.status).toBe(200);
      forgetImages(server.services.db.$client);
      const free = fillDisk(server.dataDir);
      const refused = await download();
      expect([refused.status, JSON.parse(refused.bytes.toString()).errors[0].extensions]).toMatchObject([507, { code: 'DISK_FULL' }]);
      free();
      expect(await download()).toEqual(before);
    }),
  );

  test(title('a job waits whose dataset is of an earlier version'), () => {
    const launch: typeof scripted.launch = async (services, context) => {
      const version = services.db.select().from(datasetVersion).get() as DatasetVersion;
      await imageFiles(services, version);
      return scripted.launch(services, context);
    };
    return onSmallDisk(
      async (server, api) => {
        const cmyk = await photo(200, 200).toColourspace('cmyk').jpeg().toBuffer();
        await imported(server, api.token, Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`${n % 2}/${n}.jpg`, cmyk])));
        forgetImages(server.services.db.$client);
        const { id: rawId } = submit(server.services.db, { folder: server.dataDir });
        const free = fillDisk(server.dataDir, 700 * 1024);
        server.services.bus.wake('queueChanged', '');
        const id = Buffer.from(`Job:${rawId}`).toString('base64url');
        await waiting(api, id);
        makeRoom(server, free);
        await succeeded(api, id);
      },
      { ...kindsOf({ ...scripted, launch }), IMPORT_DATASET: importDataset },
    );
  });

  test(title('what a job has made is registered when there is room'), () => {
    const result = { big: 'x'.repeat(mebibyte) };
    const finishing = Promise.withResolvers<void>();
    const filled = Promise.withResolvers<void>();
    const finish: typeof scripted.finish = async () => {
      finishing.resolve();
      await filled.promise;
      return () => result;
    };
    return onSmallDisk(
      async (server, api) => {
        const { id: rawId } = submit(server.services.db, { folder: server.dataDir });
        server.services.bus.wake('queueChanged', '');
        const id = Buffer.from(`Job:${rawId}`).toString('base64url');
        await finishing.promise;
        const free = fillDisk(server.dataDir);
        const writes = vi.spyOn(server.services.db.$client, 'transaction');
        filled.resolve();
        await until(() => writes.mock.calls.length > 2);
        writes.mockRestore();
        expect(await jobWhen(api, id, () => true)).toMatchObject({ state: 'RUNNING', waitReason: { code: 'DISK_FULL' } });
        free();
        expect(await succeeded(api, id)).toMatchObject({ result, attempts: [{ state: 'SUCCEEDED' }], waitReason: null });
      },
      kindsOf({ ...scripted, finish }),
    );
  });

  test(title('sweeps remove history and garbage, which makes room'), () =>
    withSmallDisk(32 * mebibyte, async (dataDir) => {
      const config = readConfig({ WHETSTONE_DATA_DIR: dataDir });
      const { db, close } = openDatabase(dataDir);
      const stop = keepReserve(config, createLog({ logLevel: 'silent' }));
      const storage = { config, db };
      try {
        const line = { at: 0, action: 'login', outcome: 'OK' as const, detailJson: { client: 'x'.repeat(500) } };
        const expired = { userId: 'ann', familyId: 'a', address: '', createdAt: 0, expiresAt: 1 };
        inTransaction(db, (tx) => {
          tx.insert(account).values({ id: 'ann', name: 'ann', passwordHash: '', role: 'ADMIN', createdAt: 0 }).run();
          for (let n = 0; n < 600; n += 1) {
            tx.insert(audit).values(line).run();
            tx.insert(session)
              .values({ ...expired, id: `${n}`, refreshHash: `${n}` })
              .run();
          }
        });
        await cleanStaging(storage);
        const file = join(dataDir, 'garbage');
        const bytes = bytesOf('garbage', mebibyte);
        writeFileSync(file, bytes);
        await placingBlobs(() => storeFile(storage, file));
        fillDisk(dataDir);
        const sweeps = retentionSweeps({ ...storage, bus: createBus() });
        // It is cut when it is in a file.
        await expect(sweeps.AUDIT?.()).rejects.toMatchObject({ code: 'ENOSPC' });
        expect(db.select().from(audit).all()).toHaveLength(600);
        await sweeps.SESSIONS?.();
        expect(db.select().from(session).all()).toEqual([]);
        expect(await collectBlobs(storage, Date.now() + 2 * 86_400_000)).toBe(1);
        expect([blobsOf(dataDir), stagingOf(dataDir)]).toEqual([[], []]);
        await sweeps.AUDIT?.();
        expect(db.select().from(audit).all()).toEqual([]);
        const [exported] = readdirSync(join(dataDir, 'audit'));
        expect(readFileSync(join(dataDir, 'audit', String(exported)), 'utf8').match(/\n/g)).toHaveLength(600);
        const { bavail, bsize } = statfsSync(dataDir);
        expect(bavail * bsize).toBeGreaterThan(0);
        expect(db.$client.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
      } finally {
        stop();
        close();
      }
    }),
  );

  describe('of a model', () => {
    const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
    beforeAll(() => makeInferenceModels(folder, ['plus-1']));
    afterAll(() => rmSync(folder, { recursive: true }));
    const versionOf = (api: Api) => modelVersionOf(api, 'plus', join(folder, 'plus-1.onnx'));

    test(title('a deployment stays LOADING and an active one ACTIVE, the reason is told, and both serve when there is room'), () =>
      onSmallDisk(async (server, api) => {
        const modelVersionId = await versionOf(api);
        const added = async (name: string) =>
          (await inferJson((await health(api)).url, name, item(10), by(api))).json.outputs[0].data[0] - 10;
        const reason = expect.stringContaining('disk of the data folder is full');
        const deploy = (name: string) => mutate(api, 'deploy', { name, modelVersionId }, 'deployment { name }');

        await deploy('first');
        await eventually(async () => expect(await added('first')).toBe(1));
        const freeNames = fillNames(server.dataDir);
        await deploy('second');
        await eventually(async () => expect(await health(api)).toMatchObject({ state: 'DEGRADED', reason }));
        expect(await deploymentOf(api, 'second')).toMatchObject({ active: null, loading: { number: 1 } });
        const free = fillDisk(server.dataDir);
        process.kill(hostPid() as number, 'SIGKILL');
        await eventually(async () => expect(await health(api)).toMatchObject({ restarts: 1, reason }));
        expect(await deploymentOf(api, 'first')).toMatchObject({ active: { number: 1 }, revisions: [{ state: 'ACTIVE', reason: null }] });
        expect(await deploymentOf(api, 'second')).toMatchObject({ active: null, loading: { number: 1 } });

        freeNames();
        free();
        await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', reason: null }));
        expect([await added('first'), await added('second')]).toEqual([1, 1]);
      }),
    );

    test(title('a benchmark waits with the rounds that it has measured, and its report is made when there is room'), () =>
      onSmallDisk(async (server, api) => {
        const modelVersionIds = [await versionOf(api)];
        const brief = { secondsMin: 2, secondsMax: 2, warmupSecondsMax: 0.2 };
        const input = { modelVersionIds, batchSizes: [1, 2], engines: ['ONNXRUNTIME_CPU'], intraOpThreads: [1], ...brief };
        const { job: started } = await mutate(api, 'startBenchmark', input, 'job { id }');
        const count = ({ events }: { events: { __typename: string; phase?: string; attempt: number }[] }, what: string, attempt: number) =>
          events.filter((event) => (event.phase ?? event.__typename) === what && event.attempt === attempt).length;
        await jobWhen(api, started.id, (told) => count(told, 'JobCheckpointEvent', 1) >= 3);
        const free = fillDisk(server.dataDir);
        await waiting(api, started.id);
        makeRoom(server, free);
        const ended = await succeeded(api, started.id);
        // A measurement has 10 rounds at most, in both attempts together.
        expect(count(ended, 'measurement', ended.attempts.length)).toBeLessThanOrEqual(10 - count(ended, 'JobCheckpointEvent', 1));
        const { data } = await ask(
          api,
          '{ reports(first: 1) { nodes { verified technical { rows { verdict sampleCount reasons { code } } } } } }',
        );
        const [report] = data.reports.nodes;
        expect(report.verified).toBe(true);
        for (const row of report.technical.rows) expect(row.sampleCount).toBeGreaterThan(0);
      }),
    );

    test(title('a model is imported when there is room'), () =>
      onSmallDisk(async (server, api) => {
        const file = await uploaded(api, 'plus-1.onnx', readFileSync(join(folder, 'plus-1.onnx')));
        const input = { name: 'plus', task: 'CLASSIFICATION', ...file };
        const { modelVersion } = await mutate(api, 'createModel', input, 'modelVersion { job { id } }');
        const free = fillDisk(server.dataDir);
        const { id } = modelVersion.job;
        await jobWhen(api, id, ({ waitReason }) => waitReason?.code === 'DISK_FULL');
        makeRoom(server, free);
        await succeeded(api, id);
      }),
    );
  });
});

test.skipIf(unmountable)(title('a read-only data folder is one sentence with the setting’s name'), () =>
  withSmallDisk(16 * mebibyte, async (dataDir) => {
    execFileSync('mount', ['-o', 'remount,ro', dataDir]);
    await withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir }, async (child) => {
      expect((await child.exit).code).toBe(1);
      expect(child.lines).toEqual([
        expect.stringMatching(/^The data folder \S+ \(WHETSTONE_DATA_DIR\) cannot be made or written \(\w+\)\./),
      ]);
    });
  }),
);
