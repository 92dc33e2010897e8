/** The form BUNDLE: what a program needs to give the answers of `predict` without Whetstone. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { declaredProblem } from '../inference/declared.ts';
import { trainerFolder } from '../python.ts';
import { chooseLayout, LayoutError } from '../vision/layouts.ts';
import { jsonText, labelsText, type PackageSource, refusePackage, type Texts } from './source.ts';

/** The oldest versions that `predict.py` was written for. */
const requirements = 'numpy>=2.0\nonnxruntime>=1.20\npillow>=11.0\n';

export function bundleTexts(source: PackageSource): Texts {
  const { config, outputs, inputs } = source;
  const { task, scores, scoreThreshold, nmsIou, boxesMax, maxImagePixels, labels, preprocess } = config;
  const named: Texts = labels ? { 'labels.txt': labelsText(labels) } : {};
  if (!preprocess) return named;
  const problem = declaredProblem({ inputs, outputs }, config);
  if (problem !== null) refuseSettings(source, problem);
  return {
    ...named,
    'predict.json': jsonText({
      task,
      ...(task === 'DETECTION' ? { outputLayout: layoutOf(source), scoreThreshold, nmsIou, boxesMax } : { scores }),
      maxImagePixels,
    }),
    'predict.py': readFileSync(join(trainerFolder, 'predict.py'), 'utf8'),
    'requirements.txt': requirements,
  };
}

function layoutOf(source: PackageSource): string {
  const { config, outputs } = source;
  if (config.outputLayout) return config.outputLayout;
  const shapes = outputs.map(({ shape }) => shape ?? []);
  try {
    return chooseLayout(shapes, config.labels?.length ?? null);
  } catch (error) {
    if (error instanceof LayoutError) refuseSettings(source, error.message);
    throw error;
  }
}

const refuseSettings = ({ version }: PackageSource, problem: string): never =>
  refusePackage(version, `${problem} A package has the settings with which its version served last: deploy it with those that fit.`);
