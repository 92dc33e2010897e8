/** `whetstone predict`: images of this machine to a deployment. */
import { readFile } from 'node:fs/promises';
import type { ClientSession } from '../../client/upload.ts';
import { ask, withoutControls } from './client.ts';

export interface ImagePrediction {
  revision: number;
  classes: { label: string | null; index: number; probability: number }[] | null;
  detections: { label: string | null; index: number; score: number; x: number; y: number; width: number; height: number }[] | null;
}

const document = `mutation ($input: InferInput!) {
  infer(input: $input) {
    prediction { revision classes { label index probability } detections { label index score x y width height } }
    userErrors { message }
  }
}`;

/** Larger files do not fit into a document of the API. */
const apiBytesMax = 1_000_000;

interface Asked {
  score?: number;
  top?: number;
}

export async function predict(session: ClientSession, deployment: string, path: string, { score, top }: Asked): Promise<ImagePrediction> {
  const image = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(error.code === 'ENOENT' ? `There is no file ${path}.` : `${path} cannot be read (${error.code}).`);
  });
  if (image.length > apiBytesMax) return askHost(session, deployment, image, { score, top });
  const data = await ask(session, document, { input: { deployment, image: image.toString('base64'), score, top } });
  const { prediction, userErrors } = data.infer as { prediction: ImagePrediction | null; userErrors: { message: string }[] };
  if (!prediction) throw new Error(`${path}: ${userErrors.map(({ message }) => message).join(' ')}`);
  return prediction;
}

interface HostAnswer extends Partial<Pick<ImagePrediction, 'classes' | 'detections'>> {
  error?: string;
  model_version: string;
}

/** The inference host takes larger images; its address must be reachable from here. */
async function askHost(session: ClientSession, deployment: string, image: Buffer, asked: Asked): Promise<ImagePrediction> {
  const { inferenceHealth } = await ask(session, '{ inferenceHealth { url reason } }', {});
  const { url, reason } = inferenceHealth as { url: string | null; reason: string | null };
  if (url === null) throw new Error(reason ?? 'Nothing is deployed.');
  const given = Object.entries(asked).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
  const answer = await fetch(`${url}/v2/models/${encodeURIComponent(deployment)}/predict?${new URLSearchParams(given)}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await session.accessToken()}` },
    body: new Uint8Array(image),
  }).catch(() => {
    throw new Error(
      `Images of more than 1 MB go to the inference host, and ${url} cannot be reached from here. Run the command on the machine of the ` +
        'server, or make the image smaller.',
    );
  });
  const { error, model_version: revision, classes = null, detections = null } = (await answer.json()) as HostAnswer;
  if (!answer.ok) throw new Error(error ?? `The inference host answered ${answer.status}.`);
  return { revision: Number(revision), classes, detections };
}

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

export function describePrediction(image: string, { classes, detections }: ImagePrediction): string {
  const name = (label: string | null, index: number) => withoutControls(label ?? `class ${index}`);
  if (classes) return `${image}: ${classes.map((c) => `${name(c.label, c.index)} ${percent(c.probability)}`).join(', ')}`;
  const boxes = (detections ?? []).map(({ label, index, score, ...box }) => {
    const [x, y, width, height] = [box.x, box.y, box.width, box.height].map(Math.round);
    return `  ${name(label, index)} ${percent(score)} at ${x}, ${y}, size ${width} × ${height}`;
  });
  return [`${image}: ${boxes.length} ${boxes.length === 1 ? 'detection' : 'detections'}`, ...boxes].join('\n');
}
