/** Whether an error of the file system, or what caused the error, says that the disk is full. */
export function isDiskFull(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    if (['ENOSPC', 'EDQUOT'].includes(String((e as NodeJS.ErrnoException).code))) return true;
  }
  return false;
}
