"""torchvision's public weights. `python -m whetstone_trainer.public_weights <preset>` says why they cannot be had.

PyTorch and torchvision are imported where they are needed: they take 5 s, and a file that is here is seen without.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import CLASSIFIERS, DETECTORS

if TYPE_CHECKING:
    from whetstone_trainer.checkpoint import State

TIMEOUT_SECONDS = 30
# The classifier that a preset is, or that its backbone is from.
CLASSIFIER_OF: dict[str, str] = {
    **{name: name for name, row in CLASSIFIERS.items() if row["weights"]},
    **{name: row["backbone"] for name, row in DETECTORS.items() if row["backbone"]},
}
# What torchvision calls the files. A name ends in the first digits of the file's SHA-256.
FILES: dict[str, str] = {name: CLASSIFIERS[classifier]["weights"] for name, classifier in CLASSIFIER_OF.items()}


def public_weights(preset: str, file: str | None) -> State:
    """torchvision's ImageNet weights of a preset, or of the classifier that its backbone is from.

    They are read from `file`, or downloaded once into TORCH_HOME. Raises WEIGHTS_UNAVAILABLE.
    """
    if file is not None:
        return _read_torch(Path(file))
    cached = _cached(preset)
    if not cached.exists():
        from torch.hub import download_url_to_file  # noqa: PLC0415

        with _said(cached):
            cached.parent.mkdir(parents=True, exist_ok=True)
            prefix = cached.stem.rsplit("-", 1)[1]
            download_url_to_file(address(preset), str(cached), hash_prefix=prefix, progress=False)
    return _read_torch(cached)


def require_public_weights(preset: str) -> None:
    """Asks for the weights' address where they are not on this machine. Raises WEIGHTS_UNAVAILABLE."""
    cached = _cached(preset)
    if not cached.exists():
        with _said(cached), urllib.request.urlopen(urllib.request.Request(address(preset), method="HEAD")):
            pass


def address(preset: str) -> str:
    """Where torchvision has the weights of a preset that is in FILES."""
    from whetstone_trainer.vision import get_model_weights  # noqa: PLC0415

    return str(get_model_weights(CLASSIFIER_OF[preset]).DEFAULT.url)


def _cached(preset: str) -> Path:
    """Where a preset's weights are on this machine once they were downloaded: in `torch.hub.get_dir()`."""
    if preset not in FILES:
        raise TrainerError(
            "WEIGHTS_UNAVAILABLE",
            f"There are no public weights of {preset}.",
            hint="Train from scratch, or from an earlier version of your own.",
        )
    home = os.environ.get("TORCH_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / FILES[preset]


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
            hint=f"Copy {cached.name} into the folder hub/checkpoints of TORCH_HOME (~/.cache/torch of the "
            "server's user, unless it is set), upload it as a model and name its version in `weightsOf`, or train "
            "with `scratch: true`.",
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _read_torch(file: Path) -> State:
    """A state dict in PyTorch's format or in safetensors; only tensors are ever unpickled."""
    import torch  # noqa: PLC0415

    from whetstone_trainer.model import read_state  # noqa: PLC0415

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
