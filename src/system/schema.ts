import { every, follow, sharedReading } from '../follow.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import type { Services } from '../graphql/context.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import type { Slot } from '../jobs/tables.ts';
import { type DiskSpace, diskSpace } from '../storage/disk.ts';
import { codeVersion } from '../version.ts';
import { type Gpu, type Gpus, type GpuWatch, readGpus } from './gpus.ts';
import { type Cpu, countJobs, type MachineMemory, readCpu, readMemory, readSlots } from './system.ts';
import { throttleTitles } from './throttling.ts';

interface System {
  slots: Slot[];
  queuedJobs: number;
  runningJobs: number;
  cpu: Cpu;
  memory: MachineMemory;
  disk: DiskSpace;
  gpus: Gpus;
  gpusOfJobs: ReturnType<GpuWatch['state']>;
}

const dbOf = ({ db }: Services) => db;

const readSystem = sharedReading(dbOf, async (services: Services): Promise<System> => {
  const { config, db } = services;
  const gpus = await readGpus(config.childEnv.PATH ?? '');
  return {
    slots: readSlots(db),
    queuedJobs: countJobs(db, 'QUEUED'),
    runningJobs: countJobs(db, 'RUNNING', 'CANCELLING'),
    cpu: readCpu(),
    memory: readMemory(),
    disk: diskSpace(services),
    gpus,
    gpusOfJobs: services.gpus.state(),
  };
});

const SlotType = builder.objectRef<Slot>('Slot').implement({
  description: 'A place for one GPU job. Slot i uses GPU i modulo the number of GPUs; without a GPU it is a token.',
  fields: (t) => ({
    n: t.exposeInt('n', { description: 'Counted from 0.' }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The job that holds it; null while it is free.',
      resolve: (s, _a, { db }) => (s.jobId ? findJob(db, s.jobId) : null),
    }),
  }),
});

const CpuType = builder.objectRef<Cpu>('Cpu').implement({
  description: 'The processor.',
  fields: (t) => ({
    cores: t.exposeInt('cores', { description: 'Logical cores.' }),
    utilizationPercent: t.exposeFloat('utilizationPercent', { description: 'Share of all cores that was busy, 0 to 100.' }),
    loadAverage1m: t.exposeFloat('loadAverage1m', { description: 'Load average of the last minute.' }),
  }),
});

const MemoryType = builder.objectRef<MachineMemory>('Memory').implement({
  description: 'Main memory.',
  fields: (t) => ({
    totalBytes: t.expose('totalBytes', { type: 'SafeInt', description: 'Installed.' }),
    freeBytes: t.expose('freeBytes', { type: 'SafeInt', description: 'Free, as the system counts it.' }),
    serverRssBytes: t.expose('serverRssBytes', { type: 'SafeInt', description: 'Resident memory of the server process.' }),
  }),
});

const DiskType = builder.objectRef<DiskSpace>('Disk').implement({
  description: 'The disk of the data folder. `System.storage` tells what uses it.',
  fields: (t) => ({
    totalBytes: t.expose('totalBytes', { type: 'SafeInt', description: 'Size of the disk.' }),
    freeBytes: t.expose('freeBytes', { type: 'SafeInt', description: 'Free on it.' }),
  }),
});

export const ThrottleReasonType = builder.enumType('ThrottleReason', {
  description: 'Why the clocks of a GPU are lower than they could be.',
  values: enumValues(throttleTitles),
});

const GpuType = builder.objectRef<Gpu>('Gpu').implement({
  description: 'A GPU as its driver describes it. What the card does not report is null.',
  fields: (t) => ({
    index: t.exposeInt('index', { description: 'Number of the card.' }),
    uuid: t.exposeString('uuid', { description: 'Its UUID.' }),
    name: t.exposeString('name', { description: 'Its product name.' }),
    memoryTotalBytes: t.expose('memoryTotalBytes', { type: 'SafeInt', nullable: true, description: 'Installed memory.' }),
    memoryUsedBytes: t.expose('memoryUsedBytes', { type: 'SafeInt', nullable: true, description: 'Used memory.' }),
    utilizationPercent: t.exposeFloat('utilizationPercent', {
      nullable: true,
      description: 'Share of the time that it was busy, 0 to 100.',
    }),
    temperatureCelsius: t.exposeFloat('temperatureCelsius', { nullable: true, description: 'Temperature.' }),
    powerWatts: t.exposeFloat('powerWatts', { nullable: true, description: 'Power draw.' }),
    throttleReasons: t.expose('throttleReasons', {
      type: [ThrottleReasonType],
      nullable: true,
      description: 'Why its clocks are lower than they could be. Null where the native runtime, which reads them, is not built.',
      extensions: { size: 2 },
    }),
  }),
});

export const SystemType = builder.objectRef<System>('System').implement({
  description: 'The machine and what Whetstone does with it, at one moment.',
  fields: (t) => ({
    version: t.string({ description: 'Version of Whetstone.', resolve: () => codeVersion }),
    slots: t.field({ type: [SlotType], description: 'The slots in order.', extensions: { size: 5 }, resolve: (s) => s.slots }),
    queuedJobs: t.exposeInt('queuedJobs', { description: 'Jobs that wait.' }),
    runningJobs: t.exposeInt('runningJobs', { description: 'Jobs at work.' }),
    cpu: t.field({ type: CpuType, description: 'The processor.', resolve: (s) => s.cpu }),
    memory: t.field({ type: MemoryType, description: 'Main memory.', resolve: (s) => s.memory }),
    disk: t.field({ type: DiskType, description: 'The disk.', resolve: (s) => s.disk }),
    gpus: t.field({
      type: [GpuType],
      nullable: true,
      description: 'The GPUs; null with a reason where there are none.',
      extensions: { size: 5 },
      resolve: (s) => s.gpus.gpus,
    }),
    gpusReason: t.string({ nullable: true, description: 'Why `gpus` is null.', resolve: (s) => s.gpus.reason }),
    jobsHaveNoGpu: t.string({
      nullable: true,
      description:
        'Why jobs get no GPU at present: one that asks for CUDA fails with DEVICE_UNAVAILABLE, one with the device AUTO runs on the CPU. Null where they get one.',
      resolve: (s) => s.gpusOfJobs.known.reason,
    }),
    gpusAskedAgainAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When the GPUs for jobs are looked for again. Null where there is one, or nvidia-smi is not installed.',
      resolve: (s) => s.gpusOfJobs.askedAgainAt,
    }),
  }),
});

builder.queryFields((t) => ({
  system: t.field({
    type: SystemType,
    description: 'The machine at this moment.',
    authScopes: { can: 'READ' },
    resolve: (_root, _args, context) => readSystem(context),
  }),
}));

builder.subscriptionFields((t) => ({
  system: t.field({
    type: SystemType,
    description: 'The machine, now and after each interval.',
    authScopes: { can: 'READ' },
    args: { intervalMs: t.arg.int({ required: true, defaultValue: 1000, description: 'Milliseconds between readings, 250 to 60000.' }) },
    subscribe: (_root, { intervalMs }, context) =>
      follow(every(intervalMs), async function* () {
        yield await readSystem(context);
        return false;
      }),
    resolve: (reading) => reading as System,
  }),
}));
