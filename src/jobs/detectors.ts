/**
 * The detectors that are presets: YOLOv8's neck and head in one of its sizes, on its own backbone or on that of a classifier. Another one is
 * another row: `npm run protocol` then writes its sizes into `presets.json`.
 */
import type { classifiers } from './classifiers.ts';

interface Detector {
  title: string;
  /** Of the neck, and of a backbone of its own: SIZES in the trainer's `detection/network.py`. */
  size: 'n' | 's' | 'm' | 'l' | 'x';
  /** The convolutional classifier of torchvision whose layers, with its public weights, are the backbone; null: YOLOv8's own. */
  backbone: keyof typeof classifiers | null;
}

export const detectors = {
  yolov8n: { title: 'YOLOv8n', size: 'n', backbone: null },
  yolov8s: { title: 'YOLOv8s', size: 's', backbone: null },
  yolov8m: { title: 'YOLOv8m', size: 'm', backbone: null },
  yolov8l: { title: 'YOLOv8l', size: 'l', backbone: null },
  yolov8x: { title: 'YOLOv8x', size: 'x', backbone: null },
  yolov8_mobilenet_v3_large: { title: 'YOLOv8 on MobileNetV3 large', size: 'n', backbone: 'mobilenet_v3_large' },
  yolov8_resnet18: { title: 'YOLOv8 on ResNet18', size: 's', backbone: 'resnet18' },
  yolov8_resnet50: { title: 'YOLOv8 on ResNet50', size: 'm', backbone: 'resnet50' },
} as const satisfies Record<string, Detector>;
