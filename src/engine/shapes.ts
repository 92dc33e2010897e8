/** The shapes that a model declares, and those of a run. */
import type { Port as EnginePort } from './engine.ts';

type Port = Pick<EnginePort, 'name' | 'shape'>;

/** Why the inputs of a model cannot be made. */
export interface Problem {
  code: 'DIMENSION_MISSING' | 'BATCH_FIXED' | 'INPUT_UNSUPPORTED';
  message: string;
}

const isNameless = (dim: string): boolean => dim === '' || dim === '?';
/** The name that a dimension has in `dims`. */
export const keyOf = (input: string, axis: number, dim: string): string => (isNameless(dim) ? `${input}[${axis}]` : dim);

/**
 * The shapes of a model's inputs at a batch size. A symbolic first dimension that `dims` does not name is the batch; every other
 * symbolic dimension takes its size from `dims`.
 */
export function planShapes(
  ports: readonly Port[],
  batchSize: number,
  dims: Readonly<Record<string, number>>,
): { shapes: Map<string, number[]> } | { problem: Problem } {
  const shapes = new Map<string, number[]>();
  let fixed: number | undefined;
  const missing: string[] = [];
  for (const { name, shape } of ports) {
    if (!shape) return { problem: { code: 'INPUT_UNSUPPORTED', message: `The model does not tell the shape of its input ${name}.` } };
    const sizes = shape.map((dim, axis) => {
      if (typeof dim === 'number') return dim;
      const key = keyOf(name, axis, dim);
      if (Object.hasOwn(dims, key)) return dims[key] as number;
      if (axis === 0) return batchSize;
      missing.push(key);
      return 0;
    });
    fixed ??= typeof shape[0] === 'number' ? shape[0] : undefined;
    shapes.set(name, sizes);
  }
  if (missing.length > 0) {
    const names = [...new Set(missing)].join(', ');
    return {
      problem: { code: 'DIMENSION_MISSING', message: `The model has dimensions of no fixed size: say in \`dims\` how large ${names} are.` },
    };
  }
  if (fixed !== undefined && fixed !== batchSize) {
    return { problem: { code: 'BATCH_FIXED', message: `The model takes a batch of ${fixed} only, not of ${batchSize}.` } };
  }
  return { shapes };
}

/** Whether a request can have larger inputs than the most items of a batch have. */
export const hasOpenSizes = (inputs: readonly Port[], outputs: readonly Port[]): boolean => {
  const sizesFrom = batchSymbolOf([...inputs, ...outputs]) === null ? 0 : 1;
  return inputs.some(({ shape }) => shape?.slice(sizesFrom).some((dim) => typeof dim === 'string'));
};

/** Every name that `dims` may use for a model. */
export const dimensionsOf = (ports: readonly Port[]): string[] =>
  ports.flatMap(({ name, shape }) => (shape ?? []).flatMap((dim, axis) => (typeof dim === 'string' ? [keyOf(name, axis, dim)] : [])));

/**
 * The symbol that is the first dimension of all these inputs and outputs: the batch. Null where one has another, or a nameless one: then
 * nothing says whose row of an output is whose.
 */
export function batchSymbolOf(ports: readonly Pick<Port, 'shape'>[]): string | null {
  const [symbol, ...others] = new Set(ports.map(({ shape }) => shape?.[0]));
  return others.length === 0 && typeof symbol === 'string' && !isNameless(symbol) ? symbol : null;
}
