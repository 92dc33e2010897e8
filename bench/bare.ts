/** A bare `node:http` server beside the host in `bench/serve.ts`: it reads a body whole, as the host does, and answers. Prints its address. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

const server = createServer(async (req, res) => {
  const body = await buffer(req);
  const text = JSON.stringify({ bytes: body.length });
  res.setHeader('content-length', Buffer.byteLength(text)).end(text);
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
