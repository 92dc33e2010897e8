import { Counter, Gauge, type Registry } from 'prom-client';

/**
 * Of this process, under the names that Prometheus' own clients give them. prom-client's `collectDefaultMetrics` would keep a timer of 10 ms
 * and an observer of the garbage collector for each registry, which nothing ends.
 */
export function addProcessMetrics(registry: Registry): void {
  const registers = [registry];
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the process.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor time of the process.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  new Gauge({ name: 'process_start_time_seconds', help: 'Unix time of its start.', registers }).set(performance.timeOrigin / 1000);
}
