"""ONNX files whose weights lie in a second file: joined into one, and hostile ones refused."""

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support import import_file
from tests.test_import_onnx import joined, model_of
from whetstone_trainer import inspect_file

WEIGHTS = np.arange(8, dtype=np.float32)


def split(location: str = "m.onnx.data", *, offset: int = 0, length: int | None = 16) -> bytes:
    """y = x + a + b, whose weights lie in another file, one behind the other."""
    tensors = []
    for n, name in enumerate("ab"):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        said = {"location": location, "offset": str(offset + 16 * n), "length": length}
        for key, value in said.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    nodes = [helper.make_node("Add", ["x", "a"], ["xa"]), helper.make_node("Add", ["xa", "b"], ["y"])]
    model = model_of(nodes, *tensors)
    return bytes(model.SerializeToString())


TARGET = b"/etc/passwd"


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    """What holds TARGET is a link to it."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = ZipInfo(name)
            info.external_attr = (0o120777 if content == TARGET else 0o100644) << 16
            archive.writestr(info, content)
    return path


SUM = (1 + WEIGHTS[:4] + WEIGHTS[4:]).tolist()


@pytest.mark.parametrize("length", [16, None], ids=["with lengths", "without lengths"])
@pytest.mark.parametrize("folder", ["", "export/"], ids=["flat", "in a folder"])
def test_a_zip_of_a_model_and_its_data_becomes_one_file(tmp_path: Path, folder: str, length: int | None) -> None:
    files = {
        f"{folder}m.onnx": split("m.onnx.data", length=length),
        f"{folder}m.onnx.data": WEIGHTS.tobytes(),
        f"__MACOSX/{folder}._m.onnx": b"x",
        f"{folder}README.md": b"x",
    }
    outputs, (warning,) = joined(tmp_path, *import_file(tmp_path, zip_of(tmp_path / "m.zip", files)))
    assert outputs == SUM
    assert warning["message"] == "The tensors in m.onnx.data were put into the model's file."


def test_two_uploads_become_one_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(split("./m.onnx.data"))
    (tmp_path / "blob").write_bytes(WEIGHTS.tobytes())
    data = {"file": str(tmp_path / "blob"), "fileName": "m.onnx.data"}
    outputs, _ = joined(tmp_path, *import_file(tmp_path, tmp_path / "m.onnx", data=data))
    assert outputs == SUM


DATA = {"m.onnx.data": WEIGHTS.tobytes()}


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({"m.onnx": split("../secret")}, "MODEL_UNSAFE", "files of other folders"),
        ({"m.onnx": split("/etc/passwd")}, "MODEL_UNSAFE", "files of other folders"),
        ({"m.onnx": split("C:\\secret")}, "MODEL_UNSAFE", "files of other folders"),
        ({"sub/m.onnx": split("../w"), "w": WEIGHTS.tobytes()}, "MODEL_UNSAFE", "files of other folders"),
        ({"m.onnx": split(), "m.onnx.data": TARGET}, "MODEL_UNSAFE", "links or lead out"),
        ({"m.onnx": split(), "../m.onnx.data": b"x"}, "MODEL_UNSAFE", "links or lead out"),
        ({"m.onnx": split(), "other.data": b"x"}, "MODEL_UNSAFE", "in m.onnx.data, which was not uploaded"),
        (
            {"m.onnx": split(offset=20), **DATA},
            "MODEL_INVALID",
            "from 20 of m.onnx.data, which has 32",
        ),
        ({"m.onnx": split(offset=-8), **DATA}, "MODEL_INVALID", "from -8"),
        ({"m.onnx": split(offset=2**70), **DATA}, "MODEL_INVALID", "which has 32"),
        (
            {"m.onnx": split(length=8), **DATA},
            "MODEL_INVALID",
            "has 8 bytes in m.onnx.data; its shape needs 16",
        ),
        ({"a.onnx": b"", "b.onnx": b""}, "MODEL_INVALID", "has 2 files that end in .onnx"),
        ({"weights.bin": b""}, "MODEL_INVALID", "has 0 files that end in .onnx"),
    ],
    ids=lambda value: value if isinstance(value, str) else "zip",
)
def test_data_that_is_not_that_of_the_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], code: str, message: str
) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    path = zip_of(tmp_path / "m.zip", files)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    error = inspect_file.read_file({"file": str(path), "ending": ".zip", "preset": None})["error"]
    assert (error["code"], message in error["message"]) == (code, True), error


def test_what_is_no_zip_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(b"not a zip")
    code, recorder = import_file(tmp_path, tmp_path / "m.zip")
    assert (code, recorder.events[-1]["code"]) == (65, "MODEL_INVALID")
    assert "cannot be read" in recorder.events[-1]["message"]
