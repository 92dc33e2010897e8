import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** How often the event loop is asked to do something, to see how late it does it. */
const lookMs = 100;

/**
 * Of this process, under the names that Prometheus' own clients give them. prom-client's `collectDefaultMetrics` would keep a timer of 10 ms
 * and an observer of the garbage collector for each registry, which nothing ends. The function that this returns ends the one timer here.
 */
export function addProcessMetrics(registry: Registry): () => void {
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
  return watchEventLoop(registry);
}

/** A request that arrives at any moment waits as long as these timers do. */
function watchEventLoop(registry: Registry): () => void {
  const delay = new Histogram({
    name: 'nodejs_event_loop_delay_seconds',
    help: 'How late the event loop runs a timer that is due: what each request has to wait for.',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers: [registry],
  });
  let dueAt = performance.now() + lookMs;
  const timer = setInterval(() => {
    const now = performance.now();
    delay.observe(Math.max(0, now - dueAt) / 1000);
    dueAt = now + lookMs;
  }, lookMs).unref();
  return () => clearInterval(timer);
}
