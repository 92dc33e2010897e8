/** `/` of the server: where a person who has only its address finds the rest. Programs get a 404 as at every other path. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ApiError } from './errors.ts';
import { wantsGraphiql } from './graphql/graphiql.ts';
import { codeVersion } from './version.ts';

const page = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Whetstone</title></head>
<body>
<h1>Whetstone ${codeVersion}</h1>
<ul>
<li><a href="graphql">GraphiQL</a>: the API in the browser, with an example for each area</li>
<li><a href="openapi.json">openapi.json</a>: uploads, downloads, health and metrics as an OpenAPI document</li>
<li><a href="health">health</a>, <a href="ready">ready</a>, <a href="metrics">metrics</a>: how the server is</li>
</ul>
<p>The documents are in the folder <code>docs</code> of the source: begin with README.md. Models are served at the address that the
query <code>inferenceHealth</code> gives.</p>
</body>
</html>
`;

export function serveHome(req: IncomingMessage, res: ServerResponse): void {
  res.appendHeader('Vary', 'Accept');
  if (!wantsGraphiql(req)) throw new ApiError('NOT_FOUND', 'There is nothing at this path. The API is at /graphql.');
  res.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-cache' }).end(page);
}
