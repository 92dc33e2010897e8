import type { ServerResponse } from 'node:http';

/** How long the rest of a refused body is awaited. */
const lingerMs = 2_000;

/**
 * Ends an answer that refuses its request, whose body may still be on its way. Node closes a connection that is not kept alive
 * together with the answer; the kernel then resets it under the bytes that still come, and their sender reads EPIPE in place of the
 * reason. So the answer is sent whole, and ended when the rest has been read and thrown away; who still sends after 2 s is cut off.
 */
export function refuseRequest(res: ServerResponse, status: number, headers: Record<string, string>, text: string): void {
  const { req } = res;
  res.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(text) });
  if (req.complete) {
    res.end(text);
    return;
  }
  res.write(text);
  const timer = setTimeout(() => req.destroy(), lingerMs).unref();
  req.once('close', () => {
    clearTimeout(timer);
    res.end();
  });
  req.resume();
}
