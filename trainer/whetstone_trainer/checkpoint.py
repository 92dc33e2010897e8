"""Training checkpoints: one safetensors file with everything that a run needs to continue bit for bit.

Written to a temporary name, fsynced, then renamed: a name that exists is a whole checkpoint. The last two are kept.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from whetstone_trainer.errors import TrainerError

State = dict[str, torch.Tensor]

METADATA = "whetstone"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by group (`model`, `ema`, `best`, `optimizer`, …) and the progress that belongs to them.

    Args:
        fingerprint: of everything in the specification that decides the result; only the same run may resume.
        epoch: complete epochs; `batch` batches of the next one are done too.
        progress: JSON.
    """

    fingerprint: str
    epoch: int
    batch: int
    progress: dict[str, Any]
    tensors: dict[str, State]


def save_tensors(path: Path, tensors: State, header: dict[str, Any]) -> None:
    """Writes a safetensors file so that `path` is whole or not there; the same content gives the same bytes. Raises IO.

    `header` is JSON under one key: safetensors writes several keys of metadata in an order that differs each time.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, {METADATA: json.dumps(header, sort_keys=True)})
        commit(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainerError("IO", f"{path.name} cannot be written: {error}", retryable=True) from error


def commit(temporary: Path, path: Path) -> None:
    """Gives a finished file its name, durably."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> str:
    """Writes it, removes all but the last two, and returns its file name."""
    name = f"checkpoint-{checkpoint.epoch:05d}-{checkpoint.batch:08d}.safetensors"
    header = {
        "fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "progress": checkpoint.progress,
    }
    flat = {f"{group}/{key}": tensor for group, state in checkpoint.tensors.items() for key, tensor in state.items()}
    save_tensors(folder / name, flat, header)
    for old in _files(folder)[KEPT:]:
        old.unlink()
    return name


def newest_checkpoint(folder: Path, other: str | None, fingerprint: str) -> Path | None:
    """The checkpoint of this run that is furthest on, in the folder or the `other` file; None without a usable one."""
    candidates = _files(folder) + ([Path(other)] if other is not None else [])
    found = []
    for path in candidates:
        try:
            header = _header(path)
        except (OSError, SafetensorError, ValueError, KeyError):
            continue  # not whole, or of another kind: an earlier one may be
        if header["fingerprint"] == fingerprint:
            found.append(((header["epoch"], header["batch"]), path))
    return max(found, key=lambda entry: entry[0])[1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises WEIGHTS_INVALID where the file is not a checkpoint."""
    try:
        header = _header(path)
        tensors: dict[str, State] = {}
        with safe_open(str(path), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                group, key = name.split("/", 1)
                tensors.setdefault(group, {})[key] = opened.get_tensor(name)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TrainerError("WEIGHTS_INVALID", f"The file is not a training checkpoint: {error}") from error
    return Checkpoint(header["fingerprint"], header["epoch"], header["batch"], header["progress"], tensors)


def _files(folder: Path) -> list[Path]:
    """Newest first: the names sort by epoch and batch."""
    return sorted(folder.glob("checkpoint-*.safetensors"), reverse=True)


def _header(path: Path) -> dict[str, Any]:
    with safe_open(str(path), framework="pt") as opened:
        header: dict[str, Any] = json.loads((opened.metadata() or {})[METADATA])
    return header
