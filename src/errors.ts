import type { ZodType } from 'zod';
import { rangeProblem } from './ranges.ts';

/**
 * The closed list of error codes: what a code means, its HTTP status, and whether the same request may succeed later.
 * The GraphQL enum `ErrorCode`, the REST answers and the tests are made from this table.
 */
export const errorCodes = {
  UNAUTHENTICATED: { status: 401, retryable: false, description: 'No valid credentials: log in, or refresh the access token.' },
  FORBIDDEN: { status: 403, retryable: false, description: 'The role of the caller, or the scopes of their API key, do not allow this.' },
  NOT_FOUND: { status: 404, retryable: false, description: 'Nothing has this id or name, or it was deleted.' },
  RATE_LIMITED: { status: 429, retryable: true, description: 'Too many attempts: wait for `retryAfterMs`.' },
  UNAVAILABLE: { status: 503, retryable: true, description: 'The server is starting, stopping or busy: try again.' },
  DEADLINE: { status: 504, retryable: true, description: 'The answer was not there by the deadline.' },
  LIMIT: {
    status: 400,
    retryable: false,
    description: 'The document is larger, deeper or costlier than allowed, or its answer is longer than a message may be.',
  },
  TOO_LARGE: { status: 413, retryable: false, description: 'The file or the body is larger than the server takes, or than was announced.' },
  CONFLICT: { status: 409, retryable: true, description: 'This has changed meanwhile: look at it again, then repeat.' },
  DISK_FULL: { status: 507, retryable: true, description: "The server's disk has no room for this: the message says how much is missing." },
  METHOD_NOT_ALLOWED: {
    status: 405,
    retryable: false,
    description: 'The address is not for this method: the header Allow names those that it is for.',
  },
  NOT_ACCEPTABLE: { status: 406, retryable: false, description: 'The answer has none of the types that the header Accept names.' },
  MEDIA_TYPE: { status: 415, retryable: false, description: 'The body is of a type that is not read here: the message says which is.' },
  INVALID_DOCUMENT: { status: 400, retryable: false, description: 'The GraphQL document does not parse or does not fit the schema.' },
  INTERNAL: { status: 500, retryable: false, description: 'A defect in Whetstone: report it with the request id.' },
  INVALID: { status: 400, retryable: false, description: 'A value is not acceptable: the message says what is.' },
  TAKEN: { status: 409, retryable: false, description: 'The name is in use already.' },
  IN_USE: { status: 409, retryable: false, description: 'Something else still needs this.' },
  IDEMPOTENCY_CONFLICT: {
    status: 409,
    retryable: false,
    description: 'This idempotency key came with another input before: send that one, or take a new key.',
  },
  WRONG_PASSWORD: { status: 400, retryable: false, description: 'The current password is not right.' },
  BOOTSTRAP_CLOSED: { status: 409, retryable: false, description: 'There is an administrator already.' },
  BOOTSTRAP_TOKEN: { status: 400, retryable: false, description: 'The bootstrap token is wrong, used or expired.' },
  LAST_ADMIN: { status: 409, retryable: false, description: 'The last active administrator must remain one.' },
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** A failure that a caller gets as a top-level GraphQL error or an HTTP answer. */
export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, retryAfterMs?: number) {
    super(message);
    this.name = 'ApiError';
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** One thing that is wrong with a mutation's input; `field` is the path inside the input object. */
export interface UserError {
  code: ErrorCode;
  message: string;
  field: string[] | null;
}

/** Input that its author can correct: ends as `userErrors` of the mutation's payload. */
export class InputError extends Error {
  readonly userErrors: UserError[];

  constructor(userErrors: UserError[]) {
    super(userErrors.map((e) => e.message).join(' '));
    this.name = 'InputError';
    this.userErrors = userErrors;
  }
}

/** `field`: the argument in question, or the path to it inside the input. */
export function refuse(code: ErrorCode, field: string | string[] | null, message: string): never {
  throw new InputError([{ code, message, field: typeof field === 'string' ? [field] : field }]);
}

export function notFound(what: string): never {
  throw new ApiError('NOT_FOUND', `There is no such ${what}.`);
}

/** `value` as the schema's type, or an InputError that names every field in question. */
export function parseInput<T>(schema: ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value, { error: rangeProblem });
  if (parsed.success) return parsed.data;
  throw new InputError(
    parsed.error.issues.map(({ message, path }) => {
      const field = path.map(String);
      // The sizes of dimensions are a list in the API and a map here: a key of it is no field.
      const [name] = field.splice(field.indexOf('dims') + 1 || field.length);
      return { code: 'INVALID', message: name === undefined ? message : `${name.slice(0, 100)}: ${message}`, field };
    }),
  );
}
