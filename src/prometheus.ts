/** A sample: what stands behind the family's name (such as `_sum`), labels, value. */
export type Sample = [suffix: string, labels: string, value: number];

export interface Family {
  name: string;
  type: 'counter' | 'gauge' | 'histogram';
  help: string;
  samples: Sample[];
}

export const prometheusType = 'text/plain; version=0.0.4; charset=utf-8';

/** Prometheus' text format, version 0.0.4. */
export function prometheusText(families: Family[]): string {
  const lines = families.flatMap(({ name, type, help, samples }) => [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} ${type}`,
    ...samples.map(([suffix, labels, value]) => `${name}${suffix}${labels && `{${labels}}`} ${value}`),
  ]);
  return `${lines.join('\n')}\n`;
}

/** Of this process, under the names that Prometheus' own clients give them. */
export function processFamilies(): Family[] {
  const { user, system } = process.cpuUsage();
  return [
    {
      name: 'process_resident_memory_bytes',
      type: 'gauge',
      help: 'Resident memory of the process.',
      samples: [['', '', process.memoryUsage.rss()]],
    },
    {
      name: 'process_cpu_seconds_total',
      type: 'counter',
      help: 'Processor time of the process.',
      samples: [['', '', (user + system) / 1e6]],
    },
    {
      name: 'process_start_time_seconds',
      type: 'gauge',
      help: 'Unix time of its start.',
      samples: [['', '', performance.timeOrigin / 1000]],
    },
  ];
}
