/**
 * The classifiers of timm that are presets, by timm's names. The set-up installs timm only when it is asked to. Another one is another row:
 * `npm run protocol` then writes its sizes into `presets.json`, where timm is installed. Each normalises as torchvision's do, so that weights
 * of timm which a user uploads fit.
 */
import type { Classifier } from './classifiers.ts';

const resnet = ['layer2', 'layer3', 'layer4'] as const;
const stages = ['stages.1', 'stages.2', 'stages.3'] as const;
const blocks = (second: number, third: number, fourth: number) => [`blocks.${second}`, `blocks.${third}`, `blocks.${fourth}`] as const;

export const timmPrefix = 'timm:';

export const timmClassifiers = {
  'timm:resnet50d': { title: 'ResNet50-D', paper: 'He et al. 2018', stages: resnet },
  'timm:mobilenetv4_conv_small': { title: 'MobileNetV4 conv small', paper: 'Qin et al. 2024', stages: blocks(1, 2, 3) },
  'timm:mobilenetv4_conv_medium': { title: 'MobileNetV4 conv medium', paper: 'Qin et al. 2024', stages: blocks(1, 2, 3) },
  'timm:convnextv2_atto': { title: 'ConvNeXt V2 atto', paper: 'Woo et al. 2023', stages },
  'timm:convnextv2_nano': { title: 'ConvNeXt V2 nano', paper: 'Woo et al. 2023', stages },
  'timm:convnextv2_tiny': { title: 'ConvNeXt V2 tiny', paper: 'Woo et al. 2023', stages },
  'timm:efficientnetv2_rw_t': { title: 'EfficientNetV2 rw_t', paper: 'Tan and Le 2021', stages: blocks(2, 3, 5) },
  'timm:efficientvit_b0': { title: 'EfficientViT B0', paper: 'Cai et al. 2022', stages },
  'timm:efficientvit_b1': { title: 'EfficientViT B1', paper: 'Cai et al. 2022', stages },
  'timm:ghostnetv2_100': { title: 'GhostNetV2 1.0', paper: 'Tang et al. 2022', stages: blocks(2, 4, 6) },
  'timm:edgenext_small': { title: 'EdgeNeXt small', paper: 'Maaz et al. 2022', stages },
  'timm:inception_next_tiny': { title: 'InceptionNeXt tiny', paper: 'Yu et al. 2023', stages },
  'timm:deit_tiny_patch16_224': { title: 'DeiT tiny', paper: 'Touvron et al. 2020', stages: blocks(3, 6, 9) },
  'timm:deit3_small_patch16_224': { title: 'DeiT III small', paper: 'Touvron et al. 2022', stages: blocks(3, 6, 9) },
} as const satisfies Record<string, Classifier>;
