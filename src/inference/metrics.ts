/** The host's metrics. Labels are bounded: the loaded models, and the words of `stats.ts`. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { addProcessMetrics } from '../processMetrics.ts';
import { nowMs } from './clock.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { Memory } from './memory.ts';
import type { ServedModel } from './models.ts';
import { type Observe, outcomes, parts } from './stats.ts';

/** What is true of the host, whatever its models. */
interface Measured {
  dispatcher: Pick<Dispatcher, 'depth'>;
  memory: Pick<Memory, 'used'>;
  models: ReadonlyMap<string, ReadonlyMap<number, ServedModel>>;
  authRefusals: Record<401 | 403, number>;
  /** Null where the host asks no server. */
  authConfirmedMs: number | null;
}

type Name = Pick<ServedModel['config'], 'name' | 'version'>;

export interface HostMetrics {
  registry: Registry;
  /** Begins the histograms of a model. */
  observer(model: Name): Observe;
  /** The model has gone, and no other has its name and version. */
  forget(model: Name): void;
  stop(): void;
}

/** Upper bounds in seconds. */
const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

const labelsOf = ({ name, version }: Name) => ({ model: name, version: String(version) });

/** What `host` gives is read whenever somebody asks; only times are counted as they come, since they need buckets. */
export function createHostMetrics(host: () => Measured): HostMetrics {
  const registry = new Registry();
  const registers = [registry];
  const models = () => [...host().models.values()].flatMap((versions) => [...versions.values()]);
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  gauge('whetstone_inference_queue_requests', 'Requests that wait for dispatch.', () => host().dispatcher.depth.queued);
  gauge('whetstone_inference_dispatched_runs', 'Runs that compute or are staged.', () => host().dispatcher.depth.dispatched);
  gauge(
    'whetstone_inference_body_bytes',
    'Bytes of bodies that arrive or wait, and of answers that are being sent.',
    () => host().memory.used,
  );
  new Gauge({
    name: 'whetstone_inference_accounts_age_seconds',
    help: 'Time since the server last confirmed the accounts.',
    registers,
    collect() {
      const { authConfirmedMs } = host();
      if (authConfirmedMs === null) this.remove();
      else this.set((nowMs() - authConfirmedMs) / 1000);
    },
  });
  new Counter({
    name: 'whetstone_inference_auth_refusals_total',
    help: 'Requests without a valid key or token (401), or with one that is not for this (403).',
    labelNames: ['status'],
    registers,
    collect() {
      this.reset();
      for (const [status, count] of Object.entries(host().authRefusals)) this.inc({ status }, count);
    },
  });
  new Counter({
    name: 'whetstone_inference_requests_total',
    help: 'Requests by how they ended.',
    labelNames: ['model', 'version', 'outcome'],
    registers,
    collect() {
      this.reset();
      for (const { config, stats } of models())
        for (const outcome of outcomes) this.inc({ ...labelsOf(config), outcome }, stats.ended[outcome]);
    },
  });
  new Counter({
    name: 'whetstone_inference_runs_total',
    help: 'Runs of the model; one may compute several requests.',
    labelNames: ['model', 'version'],
    registers,
    collect() {
      this.reset();
      for (const { config, stats } of models()) this.inc(labelsOf(config), stats.executions);
    },
  });
  const seconds = new Histogram({
    name: 'whetstone_inference_seconds',
    help: 'Time of answered requests by part.',
    labelNames: ['model', 'version', 'part'],
    buckets,
    registers,
  });
  const request = new Histogram({
    name: 'whetstone_inference_request_duration_seconds',
    help: 'Time of answered requests from their head to their answer: reading the body and checking the access, then the four parts.',
    labelNames: ['model', 'version'],
    buckets,
    registers,
  });
  const stop = addProcessMetrics(registry);
  return {
    registry,
    observer(model) {
      const own = labelsOf(model);
      request.zero(own);
      for (const part of parts) seconds.zero({ ...own, part });
      return {
        part: (part, value) => seconds.observe({ ...own, part }, value),
        request: (value) => request.observe(own, value),
      };
    },
    forget(model) {
      request.remove(labelsOf(model));
      for (const part of parts) seconds.remove({ ...labelsOf(model), part });
    },
    stop,
  };
}
