import type { Tokens } from '../accounts/tokens.ts';
import type { Viewer } from '../accounts/viewer.ts';
import type { Db } from '../db.ts';
import { ApiError, InputError, parseInput, refuse, type UserError } from '../errors.ts';
import { type Classes, type Detections, PredictQuery } from '../inference/answers.ts';
import { deadlineMsMax } from '../inference/config.ts';
import { AddressName } from '../naming.ts';
import { activeSpan } from '../tracing.ts';
import { findDeploymentByName, whyNoDeployment } from './deployments.ts';
import type { Supervisor } from './supervise.ts';

export type ClassScore = Classes['classes'][number];
export type LabelledDetection = Detections['detections'][number];

/** What `predict` of the inference host answers (docs/serving.md): classes from a classifier, detections from a detector. */
export type Prediction = { model_version: string } & Partial<Classes & Detections>;

/** `top`: most classes. `score`: least score of a detection, or what the deployment has. */
interface Asked {
  deployment: string;
  top: number;
  score?: number | null;
}

interface InferServices {
  db: Db;
  supervisor: Supervisor;
  tokens: Tokens;
}

/** An answer that has not arrived by then is UNAVAILABLE: it would have come at its deadline. */
export const answerMsMax = deadlineMsMax + 5_000;

/** Sends an image to a deployment the way any client does. `image`: a JPEG, PNG, WebP, TIFF or BMP file in base64. */
export async function infer(
  { supervisor, tokens, db }: InferServices,
  viewer: Viewer,
  { deployment, image, top, score }: Asked & { image: string },
): Promise<Prediction> {
  requireDeployment(viewer, deployment);
  // It becomes part of a path, where `.` and `..` mean something else.
  if (!AddressName.safeParse(deployment).success) throw new ApiError('NOT_FOUND', whyNoDeployment(db, deployment));
  const { url, reason } = supervisor.health();
  if (url === null) throw new ApiError('UNAVAILABLE', reason ?? 'Nothing is deployed.', 1000);
  parseInput(PredictQuery, { top, score: score ?? undefined });
  const bytes = Buffer.from(image, 'base64');
  if (bytes.length === 0) refuse('INVALID', 'image', 'The image is not base64, or empty.');
  // The host decides again, by the user. An API key is narrower, which the server has seen to.
  const token = await tokens.sign(viewer.user.id, viewer.by === 'SESSION' ? viewer.familyId : viewer.key.id);
  const query = `top=${top}${score == null ? '' : `&score=${score}`}`;
  const answer = await fetch(`${url}/v2/models/${encodeURIComponent(deployment)}/predict?${query}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, ...activeSpan.getStore()?.context },
    body: bytes,
    signal: AbortSignal.timeout(answerMsMax),
  }).catch(() => {
    throw new ApiError('UNAVAILABLE', 'The inference host does not answer.', 1000);
  });
  const body = (await answer.json()) as Prediction & { error?: string };
  if (answer.ok) return body;
  const message = body.error ?? 'The inference host refused the request.';
  const retryAfterMs = 1000 * Number(answer.headers.get('retry-after') ?? 1);
  switch (answer.status) {
    case 404:
      // The host may not know one of just now yet.
      throw new ApiError('NOT_FOUND', findDeploymentByName(db, deployment) ? message : whyNoDeployment(db, deployment));
    case 429:
      throw new ApiError('RATE_LIMITED', message, retryAfterMs);
    case 503:
      throw new ApiError('UNAVAILABLE', message, retryAfterMs);
    case 504:
      throw new ApiError('DEADLINE', message, retryAfterMs);
    case 400:
    case 413:
      return refuse('INVALID', 'image', message);
    case 422:
      return refuse('INVALID', 'deployment', message);
    default:
      throw new Error(`The inference host answered ${answer.status}: ${message}`);
  }
}

function requireDeployment(viewer: Viewer, deployment: string): void {
  const only = viewer.by === 'API_KEY' ? viewer.key.deploymentsJson : null;
  if (only && !only.includes(deployment)) throw new ApiError('FORBIDDEN', 'This API key is not for this deployment.');
}

/** Of one image of a batch. */
export type BatchResult = { prediction: Prediction; error: null } | { prediction: null; error: UserError };

export const batchImagesMax = 32;

/** Each image by itself, so that one that cannot be answered does not cost the others. */
export function inferBatch(
  services: InferServices,
  viewer: Viewer,
  { images, ...request }: Asked & { images: readonly string[] },
): Promise<BatchResult[]> {
  if (images.length === 0 || images.length > batchImagesMax) refuse('LIMIT', 'images', `Send 1 to ${batchImagesMax} images.`);
  requireDeployment(viewer, request.deployment);
  const one = async (image: string, n: number): Promise<BatchResult> => {
    try {
      return { prediction: await infer(services, viewer, { ...request, image }), error: null };
    } catch (error) {
      if (error instanceof InputError) {
        const [first] = error.userErrors as [UserError];
        return { prediction: null, error: { ...first, field: first.field?.[0] === 'image' ? ['images', String(n)] : first.field } };
      }
      if (error instanceof ApiError) {
        const field = error.code === 'NOT_FOUND' ? ['deployment'] : null;
        return { prediction: null, error: { code: error.code, message: error.message, field } };
      }
      throw error;
    }
  };
  return Promise.all(images.map(one));
}
