/** What a user copies to send a first request: an image to `predict`, with an access token or an API key in KEY. */
export const snippets = {
  CURL: (url: string) => `curl -s '${url}' -H "authorization: Bearer $KEY" -H 'content-type: image/jpeg' --data-binary @image.jpg`,
  PYTHON: (url: string) => `import os, requests

with open("image.jpg", "rb") as image:
    answer = requests.post("${url}", data=image, headers={"authorization": f"Bearer {os.environ['KEY']}"}, timeout=10)
answer.raise_for_status()
print(answer.json())`,
  TYPESCRIPT: (url: string) => `import { readFile } from 'node:fs/promises';

const answer = await fetch('${url}', {
  method: 'POST',
  headers: { authorization: \`Bearer \${process.env.KEY}\` },
  body: await readFile('image.jpg'),
});
if (!answer.ok) throw new Error(await answer.text());
console.log(await answer.json());`,
} as const;

export type SnippetLanguage = keyof typeof snippets;

/** `hostUrl`: of the inference host. */
export const snippetOf = (language: SnippetLanguage, hostUrl: string, deployment: string): string =>
  snippets[language](`${hostUrl}/v2/models/${encodeURIComponent(deployment)}/predict`);
