"""A checkpoint is whole or not there, and the newest one of the same run is found."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from whetstone_trainer.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint, save_tensors
from whetstone_trainer.errors import TrainerError, disk_full

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}


def checkpoint(epoch: int, batch: int, fingerprint: str = "run") -> Checkpoint:
    return Checkpoint(fingerprint, epoch, batch, {"step": epoch * 10 + batch}, {"model": WEIGHTS, "best": {}})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    weights = {"w": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    name = save_checkpoint(tmp_path, Checkpoint("run", 1, 2, {"step": 12}, {"model": weights}))
    loaded = load_checkpoint(tmp_path / name)
    assert (loaded.fingerprint, loaded.epoch, loaded.batch, loaded.progress) == ("run", 1, 2, {"step": 12})
    assert all(torch.equal(loaded.tensors["model"][key], tensor) for key, tensor in weights.items())


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    names = [save_checkpoint(tmp_path, checkpoint(epoch, batch)) for epoch, batch in ((0, 9), (0, 10), (1, 0), (10, 0))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[-2:])
    assert newest_checkpoint(tmp_path, None, "run") == tmp_path / names[-1]


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    older, newer = (tmp_path / save_checkpoint(tmp_path, checkpoint(epoch, 0)) for epoch in (1, 2))
    newer.write_bytes(newer.read_bytes()[:100])
    assert newest_checkpoint(tmp_path, None, "run") == older
    older.write_bytes(b"")
    assert newest_checkpoint(tmp_path, None, "run") is None
    with pytest.raises(TrainerError, match="not a training checkpoint"):
        load_checkpoint(newer)


def test_the_one_that_is_further_on_wins(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    here = mine / save_checkpoint(mine, checkpoint(2, 3))
    earlier, later = other / save_checkpoint(other, checkpoint(2, 2)), other / save_checkpoint(other, checkpoint(2, 4))
    assert newest_checkpoint(mine, str(earlier), "run") == here
    assert newest_checkpoint(mine, str(later), "run") == later
    assert newest_checkpoint(mine, str(other / "none"), "run") == here


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1, 0, fingerprint="other"))
    assert newest_checkpoint(tmp_path, None, "run") is None


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 4 KiB: what a full disk does, at the same call."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root on Linux")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_disk_without_room_for_the_next_checkpoint_is_told_as_full(small_disk: Path) -> None:
    small = save_checkpoint(small_disk, checkpoint(1, 0))
    large = Checkpoint("run", 2, 0, {}, {"model": {"w": torch.zeros(1_000_000)}})
    with pytest.raises(TrainerError) as caught:
        save_checkpoint(small_disk, large)
    full = disk_full(caught.value)
    assert full is not None
    assert (full.code, full.retryable) == ("DISK_FULL", True)
    assert [path.name for path in small_disk.iterdir()] == [small]


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, full_disk: None) -> None:
    small = save_checkpoint(tmp_path, checkpoint(1, 0))
    large = Checkpoint("run", 2, 0, {}, {"model": {"w": torch.zeros(10_000)}})
    with pytest.raises(TrainerError) as caught:
        save_checkpoint(tmp_path, large)
    assert (caught.value.code, caught.value.retryable) == ("IO", True)
    assert [path.name for path in tmp_path.iterdir()] == [small]
    assert newest_checkpoint(tmp_path, None, "run") == tmp_path / small


def test_a_temporary_file_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save_tensors(tmp_path / "checkpoint-00001-00000000.safetensors.tmp", WEIGHTS, {})
    assert newest_checkpoint(tmp_path, None, "run") is None


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """In another process too: the order of a map with several keys is another one there."""
    code = (
        "import sys, torch; from pathlib import Path; from whetstone_trainer.checkpoint import save_tensors; "
        "save_tensors(Path(sys.argv[1]), {'b': torch.ones(2), 'a': torch.zeros(3)}, {'one': 1, 'two': 2, 'three': 3})"
    )
    files = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", code, str(file)], check=True, cwd=Path(__file__).parents[1])
    assert len({file.read_bytes() for file in files}) == 1
