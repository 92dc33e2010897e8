"""A dataset's images, read in place from the zip that was uploaded. `src/datasets/imageTable.ts` has the form of the
table that says where each of them is."""

import os
import zlib
from pathlib import Path

import numpy as np

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.protocol import DatasetRef

ROW = np.dtype([("offset", "<u8"), ("stored", "<u4"), ("size", "<u4"), ("crc", "<u4"), ("where", "<u4")])
DEFLATED, HERE = 1, 2
HINT = "`npm run verify` lists what is damaged: restore it from a backup, or import the dataset again."


class StoredImages:
    """Reads images by their number, in any thread, also in processes that were forked after it was opened. Raises
    DATA_INVALID when it cannot be."""

    def __init__(self, dataset: DatasetRef) -> None:
        try:
            # Open as long as this object lives; `pread` has no position that others could move.
            self._zip = Path(dataset.zip).open("rb")  # noqa: SIM115
            self._here = Path(dataset.images).open("rb")  # noqa: SIM115
            size = os.fstat(self._here.fileno()).st_size
            count = int.from_bytes(os.pread(self._here.fileno(), 8, size - 8), "little")
            rows = os.pread(self._here.fileno(), ROW.itemsize * count, size - 8 - ROW.itemsize * count)
            self._rows = np.frombuffer(rows, ROW, count)
        except (OSError, ValueError, OverflowError) as error:
            raise TrainerError("DATA_INVALID", "The dataset's images cannot be read.", hint=HINT) from error

    def read(self, n: int, name: str) -> bytes:
        """The bytes of image `n`, as they were imported. Raises DATA_INVALID with `name` when they are not."""
        try:
            offset, stored, size, crc, where = self._rows[n].tolist()
            data = os.pread((self._here if where == HERE else self._zip).fileno(), stored, offset)
            if where == DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
        except (OSError, IndexError, zlib.error) as error:
            raise _damaged(name) from error
        if len(data) != size or zlib.crc32(data) != crc:
            raise _damaged(name)
        return data


def _damaged(name: str) -> TrainerError:
    return TrainerError("DATA_INVALID", f"{name} is damaged in the stored dataset.", hint=HINT)
