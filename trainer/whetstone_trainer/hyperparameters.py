"""Written by scripts/protocol.ts from src/jobs/presets.ts, where descriptions, ranges and defaults are: do not edit."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ClassificationHyperparameters:
    image_size: int
    channels: Literal["RGB", "GREY"]
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Literal["ADAMW", "SGD"]
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_steps: int
    label_smoothing: float
    class_weights: Literal["NONE", "BALANCED"]
    sampling: Literal["SHUFFLED", "BALANCED"]
    freeze: Literal["NONE", "STAGE1", "STAGE2", "STAGE3", "BACKBONE"]
    backbone_learning_rate_factor: float
    ema_decay: float
    gradient_clip: float
    early_stopping: int
    selection_metric: Literal["TOP1", "MACRO_TOP1", "LOSS"]
    mixed_precision: Literal["AUTO", "BF16", "OFF"]
    compile: bool
    flip: float
    vertical_flip: float
    crop_scale: float
    color_jitter: float
    erasing: float
    rotation: float
    hue: float
    trivial_augment: float
    quarter_turns: float
    multi_scale: float
    mix_up: float
    cut_mix: float


@dataclass(frozen=True, kw_only=True)
class DetectionHyperparameters:
    image_size: int
    channels: Literal["RGB", "GREY"]
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Literal["ADAMW", "SGD"]
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_steps: int
    class_weights: Literal["NONE", "BALANCED"]
    sampling: Literal["SHUFFLED", "BALANCED"]
    freeze: Literal["NONE", "STAGE1", "STAGE2", "STAGE3", "BACKBONE"]
    backbone_learning_rate_factor: float
    ema_decay: float
    gradient_clip: float
    early_stopping: int
    selection_metric: Literal["MAP5095", "MAP50"]
    mixed_precision: Literal["AUTO", "BF16", "OFF"]
    compile: bool
    flip: float
    vertical_flip: float
    quarter_turns: float
    multi_scale: float
    scale: float
    color_jitter: float
    mosaic: float
    mosaic_until: float
