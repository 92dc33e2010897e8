"""torchvision's public weights. `python -m whetstone_trainer.public_weights <preset>` says why they cannot be had."""

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torchvision.models import ResNet50_Weights

from whetstone_trainer.checkpoint import State
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import read_state

TIMEOUT_SECONDS = 30
PUBLIC_WEIGHTS: dict[str, str] = {"resnet50": ResNet50_Weights.IMAGENET1K_V2.url}


def public_weights(preset: str, file: str | None) -> State:
    """torchvision's ImageNet weights of a preset, from `file` or downloaded once into TORCH_HOME. Raises
    WEIGHTS_UNAVAILABLE."""
    if file is not None:
        return _read_torch(Path(file))
    url, cached = _source(preset)
    if not cached.exists():
        with _said(cached):
            cached.parent.mkdir(parents=True, exist_ok=True)
            # The name ends in the first digits of the file's SHA-256.
            prefix = cached.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=prefix, progress=False)
    return _read_torch(cached)


def require_public_weights(preset: str) -> None:
    """Asks for the weights' address where they are not on this machine. Raises WEIGHTS_UNAVAILABLE."""
    url, cached = _source(preset)
    if not cached.exists():
        with _said(cached), urllib.request.urlopen(urllib.request.Request(url, method="HEAD")):
            pass


def _source(preset: str) -> tuple[str, Path]:
    """The address of a preset's weights, and where they are on this machine once they were downloaded."""
    if preset not in PUBLIC_WEIGHTS:
        raise TrainerError(
            "WEIGHTS_UNAVAILABLE",
            f"There are no public weights of {preset}.",
            hint="Train from scratch, or from an earlier version of your own.",
        )
    url = PUBLIC_WEIGHTS[preset]
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


@contextmanager
def _said(cached: Path) -> Iterator[None]:
    """Makes a clear error of what a network says."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise TrainerError(
            "WEIGHTS_UNAVAILABLE",
            f"The public weights {cached.name} are not on this machine and cannot be downloaded: {reason}",
            hint=f"Copy {cached.name} into the folder hub/checkpoints of TORCH_HOME, upload it as a model and start "
            "from its WEIGHTS, or train from SCRATCH.",
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _read_torch(file: Path) -> State:
    """A state dict in PyTorch's format or in safetensors; only tensors are ever unpickled."""
    try:
        with file.open("rb") as opened:
            is_zip = opened.read(2) == b"PK"
        if not is_zip:
            return read_state(file)
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    except TrainerError:
        raise
    except Exception as error:
        raise TrainerError("WEIGHTS_INVALID", f"The public weights cannot be read: {error}") from error
    return state


if __name__ == "__main__":
    try:
        require_public_weights(sys.argv[1])
    except TrainerError as unavailable:
        sys.exit("\n".join(filter(None, (unavailable.message, unavailable.hint))))
