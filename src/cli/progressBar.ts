/** A line that shows how far it is: drawn in place on a terminal, otherwise written at each tenth. */
export function progressBar(output: NodeJS.WriteStream): { show(doneBytes: number, totalBytes: number): void; end(): void } {
  const startedAt = performance.now();
  let first: number | null = null;
  let shownAt = Number.NEGATIVE_INFINITY;
  let tenth = -1;
  return {
    show(done, total) {
      first ??= done;
      const share = total === 0 ? 1 : done / total;
      const now = performance.now();
      const bytesPerSecond = ((done - first) / Math.max(now - startedAt, 1)) * 1000;
      const line = `${String(Math.floor(share * 100)).padStart(3)} %  ${inMiB(done)} of ${inMiB(total)} MiB  ${inMiB(bytesPerSecond)} MiB/s`;
      if (output.isTTY) {
        if (now - shownAt < 100 && done < total) return;
        shownAt = now;
        output.write(`\r[${'#'.repeat(Math.round(share * 30)).padEnd(30, '.')}] ${line}\x1b[K`);
      } else if (Math.floor(share * 10) > tenth) {
        tenth = Math.floor(share * 10);
        output.write(`${line}\n`);
      }
    },
    end() {
      if (output.isTTY && first !== null) output.write('\n');
    },
  };
}

const inMiB = (bytes: number): string => (bytes / 1024 ** 2).toFixed(1);
