/**
 * The classifiers of torchvision that are presets, by torchvision's names. Another one is another row: `npm run protocol` then asks
 * torchvision for its sizes and its public weights and writes them into `presets.json`.
 */

export interface Classifier {
  title: string;
  paper: string;
  /** Where its second, third and fourth stage begin, each at half the resolution of the one before; the layers of a ViT are split evenly. */
  stages: readonly [string, string, string];
}

const resnet = ['layer2', 'layer3', 'layer4'] as const;
const regnet = ['trunk_output.block2', 'trunk_output.block3', 'trunk_output.block4'] as const;
const features = (second: number, third: number, fourth: number) =>
  [`features.${second}`, `features.${third}`, `features.${fourth}`] as const;

export const classifiers = {
  resnet18: { title: 'ResNet18', paper: 'He et al. 2015', stages: resnet },
  resnet34: { title: 'ResNet34', paper: 'He et al. 2015', stages: resnet },
  resnet50: { title: 'ResNet50', paper: 'He et al. 2015', stages: resnet },
  resnet101: { title: 'ResNet101', paper: 'He et al. 2015', stages: resnet },
  resnet152: { title: 'ResNet152', paper: 'He et al. 2015', stages: resnet },
  mobilenet_v3_small: { title: 'MobileNetV3 small', paper: 'Howard et al. 2019', stages: features(2, 4, 9) },
  mobilenet_v3_large: { title: 'MobileNetV3 large', paper: 'Howard et al. 2019', stages: features(4, 7, 13) },
  efficientnet_b0: { title: 'EfficientNet B0', paper: 'Tan and Le 2019', stages: features(3, 4, 6) },
  efficientnet_b1: { title: 'EfficientNet B1', paper: 'Tan and Le 2019', stages: features(3, 4, 6) },
  efficientnet_b2: { title: 'EfficientNet B2', paper: 'Tan and Le 2019', stages: features(3, 4, 6) },
  efficientnet_b3: { title: 'EfficientNet B3', paper: 'Tan and Le 2019', stages: features(3, 4, 6) },
  efficientnet_v2_s: { title: 'EfficientNetV2 S', paper: 'Tan and Le 2021', stages: features(3, 4, 6) },
  convnext_tiny: { title: 'ConvNeXt tiny', paper: 'Liu et al. 2022', stages: features(2, 4, 6) },
  convnext_small: { title: 'ConvNeXt small', paper: 'Liu et al. 2022', stages: features(2, 4, 6) },
  regnet_y_400mf: { title: 'RegNet Y 400MF', paper: 'Radosavovic et al. 2020', stages: regnet },
  regnet_y_800mf: { title: 'RegNet Y 800MF', paper: 'Radosavovic et al. 2020', stages: regnet },
  swin_t: { title: 'Swin T', paper: 'Liu et al. 2021', stages: features(2, 4, 6) },
  vit_b_16: {
    title: 'ViT B/16',
    paper: 'Dosovitskiy et al. 2020',
    stages: ['encoder.layers.encoder_layer_3', 'encoder.layers.encoder_layer_6', 'encoder.layers.encoder_layer_9'],
  },
} as const satisfies Record<string, Classifier>;
