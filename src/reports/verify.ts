import type { StorageServices } from '../storage/blobs.ts';
import { remakeReport } from './reports.ts';
import type { StoredReport } from './tables.ts';

/** How long an answer counts: the stored samples may be damaged later. */
const freshMs = 60_000;

const verdicts = new Map<string, Promise<boolean>>();

/** Makes a report again from the stored rows and samples and compares every byte: once a minute, however often it is asked for. */
export function verifyReport(services: StorageServices, { sha256, benchmarkJobId }: StoredReport): Promise<boolean> {
  const known = verdicts.get(sha256);
  if (known) return known;
  const verdict = remakeReport(services, benchmarkJobId).then((made) => made.sha256 === sha256);
  verdicts.set(sha256, verdict);
  const forget = () => verdicts.delete(sha256);
  verdict.then(() => setTimeout(forget, freshMs).unref(), forget);
  return verdict;
}
