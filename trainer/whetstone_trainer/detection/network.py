"""The detector's topology: a CSP backbone, a path-aggregation neck, and a decoupled, anchor-free head.

Sources: cross-stage partial connections, Wang et al. 2019 (CSPNet); the concatenation of every bottleneck, Wang et
al. 2022 (ELAN);
spatial pyramid pooling, He et al. 2014; neck, Liu et al. 2018 (PANet), after Lin et al. 2016 (FPN); head without
anchors, Tian et al.
2019 (FCOS), decoupled, Ge et al. 2021; distances as distributions, Li et al. 2020; SiLU, Elfwing et al. 2017.
The layers of a classifier of torchvision (BSD) can stand for the backbone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import nn

from whetstone_trainer.detection.boxes import BINS, anchor_points, distances_to_boxes, expected_distances
from whetstone_trainer.vision import get_model

# Probability that every class starts with: without it the many empty places drown the first steps (Lin et al. 2017).
PRIOR = 0.01


@dataclass(frozen=True)
class Size:
    """Depth and width factors, and the channels (before the width factor) that no stage exceeds."""

    depth: float
    width: float
    channels_max: int


SIZES = {
    "n": Size(0.33, 0.25, 1024),
    "s": Size(0.33, 0.5, 1024),
    "m": Size(0.67, 0.75, 768),
    "l": Size(1.0, 1.0, 512),
    "x": Size(1.0, 1.25, 512),
}

# At which layers of `Backbone` its second, third and fourth stage begin.
STAGES = ("to_p3.3", "to_p4", "to_p5")


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        # Not in place: its gradient needs its input, which would be copied first.
        nn.SiLU(),
    )


class Bottleneck(nn.Module):
    """Two 3×3 convolutions, with or without a shortcut around them (He et al. 2015)."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = conv(channels, channels), conv(channels, channels), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """Split in two halves; bottlenecks one after the other on the last half; all pieces concatenated."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.split = conv(inputs, outputs, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(count))
        self.join = conv((count + 2) * half, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = list(self.split(x).chunk(2, 1))
        for bottleneck in self.bottlenecks:
            pieces.append(bottleneck(pieces[-1]))
        joined: torch.Tensor = self.join(torch.cat(pieces, 1))
        return joined


class SPPF(nn.Module):
    """Spatial pyramid pooling as three 5×5 poolings in a row, which see 5, 9 and 13 places."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = inputs // 2
        self.split, self.join = conv(inputs, half, 1), conv(4 * half, outputs, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = [self.split(x)]
        for _ in range(3):
            pieces.append(self.pool(pieces[-1]))
        joined: torch.Tensor = self.join(torch.cat(pieces, 1))
        return joined


class Backbone(nn.Module):
    """Feature maps at strides 8, 16 and 32."""

    def __init__(self, widths: Sequence[int], depth: float) -> None:
        super().__init__()
        w64, w128, w256, w512, w1024 = widths
        three, six = max(1, round(3 * depth)), max(1, round(6 * depth))
        self.to_p3 = nn.Sequential(
            conv(3, w64, stride=2),
            conv(w64, w128, stride=2),
            C2f(w128, w128, three, True),
            conv(w128, w256, stride=2),
            C2f(w256, w256, six, True),
        )
        self.to_p4 = nn.Sequential(conv(w256, w512, stride=2), C2f(w512, w512, six, True))
        self.to_p5 = nn.Sequential(conv(w512, w1024, stride=2), C2f(w1024, w1024, three, True), SPPF(w1024, w1024))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p3 = self.to_p3(x)
        p4 = self.to_p4(p3)
        return p3, p4, self.to_p5(p4)


class ClassifierBackbone(nn.Module):
    """The convolutional layers of a classifier of torchvision under their own names: its weights fit without its head.

    Args:
        stages: the names of the layers at which its second, third and fourth stage begin.
    """

    def __init__(self, classifier: str, stages: Sequence[str]) -> None:
        super().__init__()
        for name, child in takewhile(lambda named: named[0] != "avgpool", get_model(classifier).named_children()):
            self.add_module(name, child)
        # The stages of some classifiers are layers of one module, `features`; those of others are their own.
        self.parent = stages[0].rpartition(".")[0]
        self.read_by = [stage.rpartition(".")[2] for stage in stages[1:]]
        with torch.no_grad():
            self.channels = [found.shape[1] for found in self.eval()(torch.zeros(1, 3, 32, 32))]
        self.train()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Feature maps at strides 8, 16 and 32: what the third and the fourth stage read, and the last layer's."""
        maps = []
        for name, layer in self.get_submodule(self.parent).named_children():
            if name in self.read_by:
                maps.append(x)
            x = layer(x)
        p3, p4 = maps
        return p3, p4, x


class Lateral(nn.Module):
    """Brings the maps of a classifier to the channels of the neck (Lin et al. 2016), the coarsest with a pooling
    pyramid."""

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.to_p3, self.to_p4 = (conv(a, b, 1) for a, b in zip(inputs[:2], outputs[:2], strict=True))
        self.to_p5 = nn.Sequential(conv(inputs[2], outputs[2], 1), SPPF(outputs[2], outputs[2]))

    def forward(
        self, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.to_p3(p3), self.to_p4(p4), self.to_p5(p5)


class Neck(nn.Module):
    """Top-down, then bottom-up: every map sees coarse and fine features."""

    def __init__(self, widths: Sequence[int], depth: float) -> None:
        super().__init__()
        w256, w512, w1024 = widths
        three = max(1, round(3 * depth))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top4 = C2f(w1024 + w512, w512, three, False)
        self.top3 = C2f(w512 + w256, w256, three, False)
        self.down3, self.bottom4 = conv(w256, w256, stride=2), C2f(w256 + w512, w512, three, False)
        self.down4, self.bottom5 = conv(w512, w512, stride=2), C2f(w512 + w1024, w1024, three, False)

    def forward(self, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> list[torch.Tensor]:
        t4 = self.top4(torch.cat([self.up(p5), p4], 1))
        out3 = self.top3(torch.cat([self.up(t4), p3], 1))
        out4 = self.bottom4(torch.cat([self.down3(out3), t4], 1))
        return [out3, out4, self.bottom5(torch.cat([self.down4(out4), p5], 1))]


class Head(nn.Module):
    """For each place of each map a distribution over bins for the four sides, and a logit for each class."""

    def __init__(self, inputs: Sequence[int], class_count: int) -> None:
        super().__init__()
        c_box, c_class = max(16, inputs[0] // 4, 4 * BINS), max(inputs[0], min(class_count, 100))
        unlikely = -math.log((1 - PRIOR) / PRIOR)
        self.boxes = nn.ModuleList(_branch(c, c_box, 4 * BINS, 0.0) for c in inputs)
        self.classes = nn.ModuleList(_branch(c, c_class, class_count, unlikely) for c in inputs)

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        distributions = [branch(x).flatten(2) for branch, x in zip(self.boxes, maps, strict=True)]
        logits = [branch(x).flatten(2) for branch, x in zip(self.classes, maps, strict=True)]
        return torch.cat(distributions, 2).transpose(1, 2), torch.cat(logits, 2).transpose(1, 2)


def _branch(inputs: int, channels: int, outputs: int, bias: float) -> nn.Sequential:
    last = nn.Conv2d(channels, outputs, 1)
    nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(conv(inputs, channels), conv(channels, channels), last)


class Detector(nn.Module):
    """N × 3 × H × W inputs, where H and W are multiples of 32.

    In training mode the raw outputs, distributions (N × A × 64) and logits (N × A × classes), for A places; in
    evaluation mode boxes
    (N × A × 4: left, top, right, bottom in pixels of the input) and scores (N × A × classes, of 0 to 1).
    """

    def __init__(self, size: str, class_count: int, classifier: tuple[str, Sequence[str]] | None = None) -> None:
        """`classifier`: whose layers are the backbone, and the stages of `ClassifierBackbone`; None: a backbone of this
        size."""
        super().__init__()
        depth, width, most = SIZES[size].depth, SIZES[size].width, SIZES[size].channels_max
        widths = [round(min(channels, most) * width) for channels in (64, 128, 256, 512, 1024)]
        self.backbone: nn.Module
        self.lateral: nn.Module | None = None
        if classifier is None:
            self.backbone = Backbone(widths, depth)
        else:
            self.backbone = layers = ClassifierBackbone(*classifier)
            self.lateral = Lateral(layers.channels, widths[2:])
        self.neck = Neck(widths[2:], depth)
        self.head = Head(widths[2:], class_count)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.backbone(inputs)
        if self.lateral is not None:
            maps = self.lateral(*maps)
        distributions, logits = self.head(self.neck(*maps))
        if self.training:
            return distributions, logits
        points, strides = anchor_points(inputs.shape[2], inputs.shape[3], inputs.device)
        return distances_to_boxes(expected_distances(distributions), points, strides), logits.sigmoid()
