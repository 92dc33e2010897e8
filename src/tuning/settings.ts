/** What a study searches, and how: what a user may say, and the defaults of a preset. */
import { z } from 'zod';
import { canonicalHash } from '../canonical.ts';
import { InputError, refuse } from '../errors.ts';
import { requireInstalled } from '../jobs/extras.ts';
import { hyperparametersOf } from '../jobs/hyperparameterInfo.ts';
import { type PresetName, presetName, presets } from '../jobs/presets.ts';
import { JobPriority } from '../jobs/priority.ts';
import {
  Ask,
  Dimension,
  dimensionsMax,
  type HyperparameterValue,
  imageSizesMax,
  Params,
  populationMax,
  trialsMax,
} from '../jobs/searchSpace.ts';
import { ConvertSpec } from '../jobs/specs.ts';
import { rangeProblem } from '../ranges.ts';
import { suggestion } from '../suggest.ts';
import { requireOneSize } from '../training/compile.ts';
import { requireWeightsToFreeze, trainingOf } from '../training/train.ts';
import { Budget } from './budget.ts';
import { type ObjectiveName, objectiveNames, objectives } from './objectives.ts';

const { seed, cpuThreads, device } = ConvertSpec.shape;

/** A target of such an objective is a share. */
const isShare = (name: ObjectiveName): boolean => objectives[name].isQuality && objectives[name].direction === 'MAXIMIZE';

const Halving = z.object({
  firstEpoch: z.int().min(1).max(1000),
  reduction: z.int().min(2).max(10),
});

/** `settingsJson` of a study: never changed afterwards. */
export const StudySettings = z.object({
  preset: presetName,
  sampler: Ask.shape.sampler,
  space: Ask.shape.space,
  fixed: Params,
  objectives: z.array(z.enum(objectiveNames)).min(1).max(4),
  population: Ask.shape.population,
  seed,
  halving: Halving.nullable(),
  begin: z.array(Params).max(populationMax),
  registerMax: z.int().min(0).max(10),
  init: z.object({ from: z.enum(['SCRATCH', 'PRETRAINED']) }),
  device,
  cpuThreads,
});
export type StudySettings = z.infer<typeof StudySettings>;

/** A dimension as a user says it. */
const SaidDimension = z.strictObject({
  name: z.string().max(100),
  low: z.number().nullish(),
  high: z.number().nullish(),
  log: z.boolean().nullish(),
  step: z.number().gt(0).nullish(),
  choices: Dimension.shape.choices.unwrap().nullish(),
  when: z.strictObject({ name: z.string().max(100), values: Dimension.shape.choices.unwrap() }).nullish(),
});
type SaidDimension = z.infer<typeof SaidDimension>;

/** Of a range: smaller steps are lost in the sampler's arithmetic. */
const stepsMax = 1_000_000;

export const Generations = z.int().min(1).max(trialsMax);

export const StartTuningInput = z.object({
  modelName: z.string(),
  datasetVersionId: z.string(),
  preset: z.enum(Object.keys(presets) as [PresetName, ...PresetName[]], 'There is no such preset: the query `presets` lists them.'),
  space: z.array(SaidDimension).min(1).max(dimensionsMax).nullish(),
  fixed: z.record(z.string(), z.unknown()).nullish(),
  objectives: z.array(z.enum(objectiveNames)).min(1).max(4).nullish(),
  sampler: Ask.shape.sampler,
  population: Ask.shape.population,
  generations: Generations.nullish(),
  trials: z.int().min(1).max(trialsMax).nullish(),
  ...Budget.shape,
  seed,
  halving: Halving.nullish(),
  begin: z.array(z.record(z.string(), z.unknown())).max(populationMax).nullish(),
  beginStudyId: z.string().nullish(),
  registerMax: z.int().min(0).max(10),
  init: StudySettings.shape.init,
  device,
  cpuThreads: cpuThreads.nullish(),
  priority: JobPriority.nullish(),
  dryRun: z.boolean(),
  idempotencyKey: z.string().max(200).nullish(),
});
export type StartTuningInput = z.infer<typeof StartTuningInput>;

/** Without those that have no effect, such as the momentum of AdamW. */
export function activeParams(space: Dimension[], params: Params): Params {
  const active = space.filter(({ when }) => when === null || when.values.includes(params[when.name] as HyperparameterValue));
  return Object.fromEntries(active.map(({ name }) => [name, params[name] as HyperparameterValue]));
}

/** The hyperparameters that a trial trains with. A dimension without effect has its default, so that trials which do the same are equal. */
export const hyperparametersOfTrial = ({ preset, space, fixed }: Pick<StudySettings, 'preset' | 'space' | 'fixed'>, params: Params) =>
  trainingOf(preset, { ...fixed, ...activeParams(space, params) }, {});

/**
 * Equal for hyperparameters that are equal to 12 digits: a sampler that takes over a value of a logarithmic range gives it back with another last
 * bit.
 */
export const hashOfTrial = (settings: StudySettings, params: Params): string =>
  canonicalHash(hyperparametersOfTrial(settings, rounded(params)));

const rounded = (params: Params): Params =>
  Object.fromEntries(
    Object.entries(params).map(([name, value]) => [name, typeof value === 'number' ? Number(value.toPrecision(12)) : value]),
  );

/**
 * The settings of a study from what a user said; an InputError where that is not right. `earlier`: the best trials of the study that it begins
 * with, best first.
 */
export function settingsOf(input: StartTuningInput, defaultThreads: number, earlier: readonly Params[]): StudySettings {
  const { preset, sampler, population, seed, registerMax, init, device } = input;
  requireInstalled(preset);
  const fixed = Params.parse(trainingOfFixed(preset, input.fixed ?? {}));
  const space = input.space ? saidSpace(preset, input.space, fixed) : defaultSpace(preset, fixed);
  requireWeightsToFreeze(init.from, fixed, 'fixed');
  for (const freeze of space.find(({ name }) => name === 'freeze')?.choices ?? []) requireWeightsToFreeze(init.from, { freeze }, 'space');
  const sizes = { multiScale: Math.max(0, ...mayBe('multiScale', { space, fixed }).map(Number)) };
  if (mayBe('compile', { space, fixed }).includes(true)) requireOneSize({ compile: true, ...sizes }, 'space');
  if (space.length === 0) refuse('INVALID', 'fixed', 'Every hyperparameter of the default space is fixed: nothing is left to search.');
  const { task } = presets[preset];
  const wanted: ObjectiveName[] = input.objectives ?? [task === 'CLASSIFICATION' ? 'TOP1' : 'MAP5095'];
  requireObjectives(preset, wanted);
  if (input.target != null && input.target > 1 && isShare(wanted[0] as ObjectiveName))
    refuse(
      'INVALID',
      'target',
      `${wanted[0]} is at most 1, so that ${input.target} is never reached: say the target as a share, such as 0.95.`,
    );
  if (sampler === 'TPE' && wanted.length > 1) refuse('INVALID', 'sampler', 'TPE optimises one objective here. Use NSGA2 for several.');
  if (sampler === 'GRID') requireGrid(space);
  if (wanted.includes('LATENCY')) requireFewSizes({ preset, space, fixed });
  const halving = input.halving ?? null;
  if (halving && space.some(({ name }) => name === 'epochs'))
    refuse('INVALID', 'halving', 'Trials of different `epochs` cannot be compared at a rung: fix `epochs`, or leave `halving` out.');
  const cpuThreads = input.cpuThreads ?? defaultThreads;
  const common = { preset, sampler, space, fixed, population, seed, halving, registerMax, init, device, cpuThreads };
  const begin = (input.begin ?? []).map((said, n) => beginningOf(preset, space, fixed, said, ['begin', String(n)]));
  if (begin.length > population)
    refuse('INVALID', 'begin', `A generation has ${population} trials: begin with at most as many, not with ${begin.length}.`);
  for (const params of earlier.slice(0, population - begin.length)) {
    const searched = Object.entries(params).filter(([name]) => space.some((one) => one.name === name));
    begin.push(beginningOf(preset, space, fixed, Object.fromEntries(searched), ['beginStudyId']));
  }
  return { ...common, objectives: wanted, begin };
}

/** Errors name the place of the input that has the values. */
function trainingAt(at: string[], preset: PresetName, said: Record<string, unknown>) {
  try {
    return trainingOf(preset, said, {});
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(error.userErrors.map((one) => ({ ...one, field: [...at, ...(one.field ?? []).slice(1)] })));
  }
}

/** The fixed values, without the defaults that `trainingOf` adds. */
function trainingOfFixed(preset: PresetName, said: Record<string, unknown>): Record<string, unknown> {
  const checked = trainingAt(['fixed'], preset, said).hyperparameters as Record<string, unknown>;
  return Object.fromEntries(Object.keys(said).map((name) => [name, checked[name]]));
}

function requireObjectives(preset: PresetName, wanted: ObjectiveName[]): void {
  const { task } = presets[preset];
  const wrong = wanted.find((name) => objectives[name].task !== null && objectives[name].task !== task);
  if (wrong) refuse('INVALID', 'objectives', `${wrong} is not measured for ${preset}, which is for ${task}.`);
  if (new Set(wanted).size < wanted.length) refuse('INVALID', 'objectives', 'An objective is named twice: name each once.');
  if (!wanted.some((name) => objectives[name].isQuality))
    refuse(
      'INVALID',
      'objectives',
      `${wanted.join(', ')} say only how large or fast a model is. Add one that says how good it is, such as TOP1 or MAP5095.`,
    );
}

/** The rows of the preset that are not fixed. A condition on a fixed hyperparameter is decided here. */
const defaultSpace = (preset: PresetName, fixed: Params): Dimension[] =>
  hyperparametersOf(preset).flatMap(({ name, search }) => {
    if (!search || name in fixed) return [];
    const { when } = search;
    if (when === null || !(when.name in fixed)) return [search];
    return when.values.includes(fixed[when.name] as string) ? [{ ...search, when: null }] : [];
  });

function saidSpace(preset: PresetName, said: SaidDimension[], fixed: Params): Dimension[] {
  const known = hyperparametersOf(preset);
  const space = said.map((one, n): Dimension => {
    const at = ['space', String(n)];
    const { name, choices, low, high, log, step, when } = one;
    const info = known.find((row) => row.name === name);
    if (!info) {
      const names = known.map((row) => row.name);
      return refuse('INVALID', at, `${preset} has no hyperparameter ${name}.${suggestion(name, names)} There are: ${names.join(', ')}.`);
    }
    if (name in fixed) refuse('INVALID', at, `${name} is in \`fixed\` too: say it once.`);
    if (said.findIndex((other) => other.name === name) !== n) refuse('INVALID', at, `${name} is searched twice: say it once.`);
    const base = { name, low: null, high: null, log: false, step: null, choices: null, when: when ?? null };
    if (choices) {
      if (low != null || high != null) refuse('INVALID', at, `${name} has choices and a range: say one of the two.`);
      return { ...base, type: 'CHOICE', choices };
    }
    if (info.type === 'ENUM' || info.type === 'BOOLEAN')
      return refuse('INVALID', at, `${name} takes ${info.values?.join(' or ') ?? 'true or false'}: say the \`choices\`.`);
    if (low == null || high == null || low > high)
      return refuse('INVALID', at, `${name} needs \`choices\`, or a range with \`low\` ≤ \`high\`.`);
    if (log && (low <= 0 || step != null))
      refuse('INVALID', at, `${name} is searched by its logarithm: \`low\` must be above 0, and there is no \`step\`.`);
    if (step != null && (high - low) / step > stepsMax)
      refuse('INVALID', at, `${name} has more than ${stepsMax} steps of ${step} in its range: take larger ones, or none.`);
    return { ...base, type: info.type, low, high, log: log ?? false, step: step ?? null };
  });
  for (const [n, dimension] of space.entries()) requireValid(preset, fixed, space, dimension, ['space', String(n)]);
  return space;
}

/** An InputError where a dimension leaves the range of its hyperparameter, or its condition is none. */
function requireValid(preset: PresetName, fixed: Params, space: Dimension[], dimension: Dimension, at: string[]): void {
  const { name, type, low, high, step, choices, when } = dimension;
  const inside = low !== null && step !== null && low + step <= (high as number) ? [low + step] : [];
  const values = choices ?? [low as number, high as number, ...inside];
  if (type === 'INT' && [...values, step ?? 1].some((value) => !Number.isInteger(value)))
    refuse('INVALID', at, `${name} takes whole numbers: ${[low, high, step].filter((one) => one !== null).join(', ')} are not all.`);
  for (const value of values) {
    const parsed = (presets[preset].hyperparameters.shape as Record<string, z.ZodType>)[name]?.safeParse(value, { error: rangeProblem });
    if (parsed?.error) refuse('INVALID', at, `${name} cannot be ${value}: ${parsed.error.issues[0]?.message}`);
  }
  if (when === null) return;
  const other = space.find((one) => one.name === when.name);
  if (!other) {
    const hint =
      when.name in fixed ? 'It is fixed: leave the condition or the dimension out.' : 'Search it too, or leave the condition out.';
    refuse('INVALID', at, `${name} depends on ${when.name}, which is not searched. ${hint}`);
  }
  const missing = when.values.find((value) => !other?.choices?.includes(value));
  if (missing !== undefined || other?.when)
    refuse(
      'INVALID',
      at,
      `${name} depends on ${when.name}: that must have \`choices\` with ${when.values.join(', ')}, and no condition itself.`,
    );
}

/** The values that trials may have of a hyperparameter, of a range its ends. */
export function mayBe(name: string, { space, fixed }: Pick<StudySettings, 'space' | 'fixed'>): unknown[] {
  const { choices, low, high } = space.find((one) => one.name === name) ?? { choices: [fixed[name]] };
  return (choices ?? [low, high]).filter((value) => value != null);
}

/** The image sizes that trials may have. */
export function imageSizesOf({ preset, space, fixed }: Pick<StudySettings, 'preset' | 'space' | 'fixed'>): number[] {
  const { imageSize } = trainingOf(preset, fixed, {}).hyperparameters;
  const searched = space.find(({ name }) => name === 'imageSize');
  if (!searched) return [imageSize];
  const { choices, low, step, when } = searched;
  const sizes = choices?.map(Number) ?? Array.from({ length: gridPoints([searched]) }, (_, n) => Number(low) + n * (step ?? 1));
  return [...new Set(when ? [...sizes, imageSize] : sizes)].sort((a, b) => a - b);
}

function requireFewSizes(settings: Pick<StudySettings, 'preset' | 'space' | 'fixed'>): void {
  if (settings.space.some(({ name }) => name === 'channels'))
    refuse('INVALID', 'space', 'LATENCY is measured for one value of `channels`: put it into `fixed`, or leave LATENCY out.');
  const { length } = imageSizesOf(settings);
  if (length <= imageSizesMax) return;
  const message = `LATENCY is measured for each imageSize, at most ${imageSizesMax}; the space has ${length}. Take \`choices\`, or a larger \`step\`.`;
  refuse('LIMIT', 'space', message);
}

/** Points of a grid, those included that a condition makes equal. */
export const gridPoints = (space: Dimension[]): number =>
  space.reduce((n, { choices, low, high, step }) => n * (choices?.length ?? Math.floor(((high ?? 0) - (low ?? 0)) / (step ?? 1)) + 1), 1);

function requireGrid(space: Dimension[]): void {
  const open = space.find(({ type, step, log }) => (type === 'FLOAT' && step === null) || log);
  if (open) refuse('INVALID', 'space', `A grid needs \`choices\` or a \`step\` of ${open.name}.`);
  const points = gridPoints(space);
  if (points > 100_000) refuse('LIMIT', 'space', `The grid has ${points} points: take larger steps or fewer choices.`);
}

/** A trial to begin with: each dimension from `said`, or else the default of the preset. `at`: its place in the input. */
function beginningOf(preset: PresetName, space: Dimension[], fixed: Params, said: Record<string, unknown>, at: string[]): Params {
  const stranger = Object.keys(said).find((name) => !space.some((one) => one.name === name));
  if (stranger !== undefined) refuse('INVALID', at, `${stranger} is not searched: a trial to begin with has values of the space.`);
  const { hyperparameters } = trainingAt(at, preset, { ...fixed, ...said });
  const params = Params.parse(Object.fromEntries(space.map(({ name }) => [name, (hyperparameters as Record<string, unknown>)[name]])));
  for (const { name, low, high, step, choices } of space) {
    const value = params[name] as number;
    const isOnStep = step === null || Math.abs((value - (low ?? 0)) / step - Math.round((value - (low ?? 0)) / step)) < 1e-9;
    const isInside = choices ? choices.includes(value) : value >= (low as number) && value <= (high as number) && isOnStep;
    if (!isInside)
      refuse('INVALID', at, `${name} is ${value} there, which is not in the space. Say a value of the space, or a larger space.`);
  }
  return params;
}
