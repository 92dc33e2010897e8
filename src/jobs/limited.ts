export interface ProcessLimits {
  /**
   * Private writable memory (RLIMIT_DATA). Not address space, of which Node reserves 11 to 20 GB in each process with a worker; what it
   * really has of its own at its start is 0.6 GB, and 1.4 GB with a worker.
   */
  memoryBytes: number;
  cpuSeconds: number;
  /** Largest single file that it may write. */
  fileBytes: number;
}

/** A command that runs under `ulimit`, in place of the shell that sets it: a Node process cannot limit itself. */
export function limited(
  command: string,
  args: string[],
  { memoryBytes, cpuSeconds, fileBytes }: ProcessLimits,
): { command: string; args: string[] } {
  // POSIX counts files in 512-byte blocks, shells count memory in KiB. macOS does not limit memory: then the others have to do.
  const limits = [
    `ulimit -d ${Math.ceil(memoryBytes / 1024)} 2>/dev/null`,
    // SIGXCPU at the limit: SIGKILL, which follows at the hard one, would look like the system's when memory runs out.
    `ulimit -S -t ${cpuSeconds}`,
    `ulimit -H -t ${cpuSeconds + 1}`,
    `ulimit -f ${Math.ceil(fileBytes / 512)}`,
    'ulimit -c 0',
  ];
  return { command: '/bin/sh', args: ['-c', `${limits.join('; ')}; exec "$@"`, 'limited', command, ...args] };
}
