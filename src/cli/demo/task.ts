/** What differs between the demos. */
export interface DemoTask {
  /** Of the dataset and of the model. */
  name: string;
  task: 'CLASSIFICATION' | 'DETECTION';
  preset: string;
  hyperparameters: Record<string, number>;
  /** What `--tune` searches instead of training once: input of `startTuning`. */
  study?: {
    preset: string;
    space: object[];
    fixed: Record<string, number>;
    objectives: string[];
    population: number;
    generations: number;
    halving: object;
  };
  /** What is uploaded, in words. */
  data: string;
  /** Writes the files of the dataset's zip, by their names in it. */
  write(folder: string): Promise<[name: string, bytes: Buffer][]>;
  /** How good the model is, in words. */
  quality(evaluation: { images: number; top1: number; map50: number; map5095: number }): string;
  /** Images that are not in the dataset, with their classes. */
  unseen?(): Promise<[label: string, image: Buffer][]>;
  /** Looks at what the ONNX version (a file in `folder`) finds, and leaves what there is to see in `reportFolder`. */
  check?(folder: string, reportFolder: string): Promise<string>;
}
