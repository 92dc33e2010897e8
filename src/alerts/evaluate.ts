import type { ServerReading } from './readings.ts';
import type { AlertRule } from './rules.ts';
import type { AlertStateName } from './tables.ts';

/**
 *   OK → PENDING            The limit is exceeded.
 *   PENDING → FIRING        It has been for the duration of the rule.
 *   OK → FIRING             The same, where the duration is 0.
 *   PENDING, FIRING → OK    The limit is kept again, nothing is measured, or the rule is disabled.
 */
export interface AlertState {
  state: AlertStateName;
  /** Of the monotonic clock: since when the limit is exceeded. A wall clock that jumps must not fire an alert. */
  exceededAt: number;
}

/** The next state for a value, null where nothing is measured. `now`: of the monotonic clock. */
export function nextState(
  { enabled, below, threshold, durationSeconds }: Pick<AlertRule, 'enabled' | 'below' | 'threshold' | 'durationSeconds'>,
  value: number | null,
  before: AlertState,
  now: number,
): AlertState {
  const exceeded = enabled && value !== null && (below ? value < threshold : value > threshold);
  if (!exceeded) return { state: 'OK', exceededAt: now };
  if (before.state === 'FIRING') return before;
  const exceededAt = before.state === 'PENDING' ? before.exceededAt : now;
  return { state: now - exceededAt >= 1000 * durationSeconds ? 'FIRING' : 'PENDING', exceededAt };
}

/** The state of a rule for the whole server (''), or for each deployment that has requests or had an alert, with what was measured. */
export function evaluate(
  rule: AlertRule,
  readings: readonly ServerReading[],
  before: ReadonlyMap<string, AlertState>,
  now: number,
): Map<string, AlertState & { value: number | null }> {
  const values = rule.values(readings);
  return new Map(
    [...new Set([...values.keys(), ...before.keys()])].map((deployment) => {
      const value = values.get(deployment) ?? null;
      return [deployment, { value, ...nextState(rule, value, before.get(deployment) ?? { state: 'OK', exceededAt: now }, now) }];
    }),
  );
}
