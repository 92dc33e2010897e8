"""Images are read in place from the zip of their dataset."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scenes import write_images
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import DatasetRef
from whetstone_trainer.stored_images import HERE, ROW, StoredImages

FILES = {"a.png": b"one" * 1000, "b.png": b"two" * 1000, "empty": b""}


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    paths = write_images(tmp_path, FILES)
    return DatasetRef(**paths, manifest="", classes=("a",), content_hash="0" * 64)


def rows_of(dataset: DatasetRef) -> np.ndarray:
    return np.frombuffer(Path(dataset.images).read_bytes()[:-8], ROW).copy()


def write_rows(dataset: DatasetRef, rows: np.ndarray, before: bytes = b"") -> None:
    Path(dataset.images).write_bytes(before + rows.tobytes() + len(rows).to_bytes(8, "little"))


def test_stored_and_deflated_ones_come_as_they_were(dataset: DatasetRef) -> None:
    stored = StoredImages(dataset)
    assert [stored.read(n, name) for n, name in enumerate(FILES)] == list(FILES.values())


def test_one_that_was_converted_lies_before_the_table(dataset: DatasetRef) -> None:
    rows = rows_of(dataset)
    rows[1] = (0, len(FILES["b.png"]), len(FILES["b.png"]), rows[1]["crc"], HERE)
    write_rows(dataset, rows, FILES["b.png"])
    assert StoredImages(dataset).read(1, "b.png") == FILES["b.png"]


def test_another_process_reads_at_the_same_time(dataset: DatasetRef) -> None:
    stored = StoredImages(dataset)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(stored.read(0, "a.png") == FILES["a.png"] for _ in range(500)) else 1)
    assert all(stored.read(1, "b.png") == FILES["b.png"] for _ in range(500))
    assert os.waitpid(child, 0) == (child, 0)


@pytest.mark.parametrize("n", [0, 1], ids=["stored", "deflated"])
def test_a_damaged_one_is_named(dataset: DatasetRef, n: int) -> None:
    archive = Path(dataset.zip)
    content = bytearray(archive.read_bytes())
    content[rows_of(dataset)[n]["offset"] + 3] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(TrainerError, match=r"val/x\.png is damaged in the stored dataset") as caught:
        StoredImages(dataset).read(n, "val/x.png")
    assert caught.value.code == "DATA_INVALID"


def test_one_that_unpacks_to_more_than_its_row_says_is_damaged(dataset: DatasetRef) -> None:
    rows = rows_of(dataset)
    rows[1]["size"] = 10
    write_rows(dataset, rows)
    with pytest.raises(TrainerError, match="damaged"):
        StoredImages(dataset).read(1, "b.png")


def test_a_zip_that_is_cut_off_names_the_image(dataset: DatasetRef) -> None:
    os.truncate(dataset.zip, 100)
    with pytest.raises(TrainerError, match=r"b\.png is damaged"):
        StoredImages(dataset).read(1, "b.png")


def test_a_number_that_the_table_lacks_is_named(dataset: DatasetRef) -> None:
    with pytest.raises(TrainerError, match=r"d\.png is damaged"):
        StoredImages(dataset).read(3, "d.png")


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\xff" * 8], ids=["empty", "no table", "count"])
def test_a_damaged_table_is_told(dataset: DatasetRef, content: bytes) -> None:
    Path(dataset.images).write_bytes(content)
    with pytest.raises(TrainerError, match="images cannot be read"):
        StoredImages(dataset)


def test_a_missing_file_is_told_without_its_path(dataset: DatasetRef) -> None:
    with pytest.raises(TrainerError, match="images cannot be read") as caught:
        StoredImages(replace(dataset, zip="/nowhere/images.zip"))
    assert "nowhere" not in str(caught.value)
