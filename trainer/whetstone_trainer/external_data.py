"""An ONNX file whose tensors lie in other files becomes one file.

Those files are members of the uploaded zip, or a second upload. What a tensor says of where it lies is only a name
that is looked up among them, never a path that is opened.
"""

import math
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

import onnx
from onnx import TensorProto

from whetstone_trainer.errors import TrainerError

ONNX_BYTES_MAX = 2**31 - 1
MEMBERS_MAX = 10_000
DETAILS_MAX = 10
ONE_FILE = "Upload a zip of the .onnx file and its data, or export one file: torch.onnx.export(…, external_data=False)."

# A name, as tensors say it, and the file that has it.
Sources = Mapping[str, Path]


def is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


# ------------------------------------------------------------------------------------------------------------- the zip


def unpack(file: Path, folder: Path) -> tuple[Path, Sources]:
    """The only .onnx file of a zip, and the files in its folder and below it by their names from there. They are
    written into `folder` under names of our own. Raises MODEL_INVALID, MODEL_UNSAFE."""
    try:
        with ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member)]
            _check(members)
            models = [member for member in members if member.filename.lower().endswith(".onnx")]
            if len(models) != 1:
                raise TrainerError(
                    "MODEL_INVALID",
                    f"The zip has {len(models)} files that end in .onnx; it must have one, beside its data.",
                    details=tuple(member.filename for member in models[:DETAILS_MAX]),
                )
            paths = {}
            for n, member in enumerate(members):
                paths[member.filename] = folder / f"member-{n}"
                with archive.open(member) as source, paths[member.filename].open("xb") as target:
                    shutil.copyfileobj(source, target)
    except (BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise TrainerError("MODEL_INVALID", f"The zip cannot be read: {error}. Make it again.") from error
    home = PurePosixPath(models[0].filename).parent
    beside = {name: path for name, path in paths.items() if PurePosixPath(name).is_relative_to(home)}
    return paths[models[0].filename], {
        str(PurePosixPath(name).relative_to(home)): path for name, path in beside.items()
    }


def _is_hidden(member: ZipInfo) -> bool:
    """Of macOS and of editors."""
    return any(
        part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(member.filename).parts if part != ".."
    )


def _check(members: Sequence[ZipInfo]) -> None:
    odd = [m for m in members if not _is_plain(m.filename) or stat.S_ISLNK(m.external_attr >> 16)]
    if odd:
        raise TrainerError(
            "MODEL_UNSAFE",
            f"{len(odd)} names in the zip are links or lead out of it. Make it of the files themselves.",
            details=tuple(member.filename for member in odd[:DETAILS_MAX]),
        )
    if len(members) > MEMBERS_MAX or sum(member.file_size for member in members) > 2 * ONNX_BYTES_MAX:
        raise TrainerError(
            "LIMIT_EXCEEDED", f"The zip has more than {MEMBERS_MAX} files, or than 4 GiB: an ONNX file can have 2 GiB."
        )


def _is_plain(name: str) -> bool:
    """Whether a name stays below the folder that it starts in, on every system."""
    return not (name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in name.split("/"))


# --------------------------------------------------------------------------------------------------------- the tensors


def join(tensors: Iterator[TensorProto], sources: Sources) -> list[str]:
    """Puts the bytes of external tensors into them; the names of the files that they came from. Raises MODEL_UNSAFE,
    MODEL_INVALID."""
    external = [tensor for tensor in tensors if is_external(tensor)]
    if not external:
        return []
    places = [({entry.key: entry.value for entry in tensor.external_data}, tensor) for tensor in external]
    # `./m.onnx.data` is `m.onnx.data`.
    locations = [str(PurePosixPath(said.get("location", ""))) if said.get("location") else "" for said, _ in places]
    names = [tensor.name or "(constant)" for tensor in external]
    leading_out = sorted({name for name, place in zip(names, locations, strict=True) if not _is_plain(place)})
    if leading_out:
        raise TrainerError(
            "MODEL_UNSAFE",
            f"{len(leading_out)} tensors lie in files of other folders, which are never read. {ONE_FILE}",
            details=tuple(leading_out[:DETAILS_MAX]),
        )
    missing = sorted(set(locations) - set(sources))
    if missing:
        raise TrainerError(
            "MODEL_UNSAFE",
            f"{len(set(names))} tensors lie outside the file, in {', '.join(missing[:3])}, which was not uploaded. "
            + ONE_FILE,
            details=tuple(sorted(set(names))[:DETAILS_MAX]),
        )
    total = 0
    for (said, tensor), name in zip(places, locations, strict=True):
        offset, length = _extent(tensor, said, name, sources[name].stat().st_size)
        total += length
        if total > ONNX_BYTES_MAX:
            raise TrainerError(
                "LIMIT_EXCEEDED", "With its data the model has more than 2 GiB: an ONNX file can have no more."
            )
        with sources[name].open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return sorted(set(locations))


def _extent(tensor: TensorProto, said: Mapping[str, str], name: str, size: int) -> tuple[int, int]:
    """Where the bytes of a tensor begin, and how many they are."""
    needed = _bytes_of(tensor)
    try:
        offset = int(said.get("offset") or 0)
        length = int(said.get("length") or (size - offset if needed is None else needed))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        raise TrainerError(
            "MODEL_INVALID",
            f"The tensor {tensor.name[:200]} would be {length} bytes from {offset} of {name}, which has {size}. "
            "Upload the data that belongs to this file.",
        )
    if needed is not None and length != needed:
        raise TrainerError(
            "MODEL_INVALID", f"The tensor {tensor.name[:200]} has {length} bytes in {name}; its shape needs {needed}."
        )
    return offset, length


def _bytes_of(tensor: TensorProto) -> int | None:
    """None of types that are packed, or have no size."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or tensor.data_type >= TensorProto.UINT4:
        return None
    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
