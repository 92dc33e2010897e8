"""torchvision's weights: from a file, from the cache, or a clear error."""

import socket
import subprocess
import sys
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file

from tests import support
from whetstone_trainer import public_weights as module
from whetstone_trainer.errors import TrainerError
from whetstone_trainer.model import build_model, weights_hash
from whetstone_trainer.public_weights import public_weights, require_public_weights


def test_public_weights_come_from_a_file_in_either_format(tmp_path: Path) -> None:
    torch.manual_seed(1)
    public = dict(build_model("resnet50", 1000).state_dict())
    torch.save(public, tmp_path / "weights")
    assert weights_hash(public_weights("resnet50", str(tmp_path / "weights"))) == weights_hash(public)
    save_file(public, tmp_path / "weights")
    assert weights_hash(public_weights("resnet50", str(tmp_path / "weights"))) == weights_hash(public)
    (tmp_path / "weights").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(TrainerError) as caught:
        public_weights("resnet50", str(tmp_path / "weights"))
    assert caught.value.code == "WEIGHTS_INVALID"


@pytest.mark.parametrize("preset", module.FILES)
def test_public_weights_that_were_downloaded_once_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"a": torch.ones(1)}, folder / module.address(preset).rsplit("/", 1)[1])
    require_public_weights(preset)
    assert public_weights(preset, None).keys() == {"a"}


def test_whether_they_were_downloaded_is_said_without_pytorch() -> None:
    code = "import sys, whetstone_trainer.public_weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=support.TRAINER, check=False).returncode == 0


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is one where nothing listens: the answer of a machine without a network, at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(module, "address", lambda preset: f"http://127.0.0.1:{port}/{preset}")
    for ask in (lambda: require_public_weights("resnet50"), lambda: public_weights("resnet50", None)):
        with pytest.raises(TrainerError, match="cannot be downloaded") as caught:
            ask()
        assert caught.value.code == "WEIGHTS_UNAVAILABLE"
        assert "resnet50-11ad3fa6.pth into the folder hub/checkpoints" in str(caught.value.hint)
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


def test_an_address_that_answers_is_enough_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name in ("there", "gone"):
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            monkeypatch.setattr(module, "address", lambda preset, url=url: url)
            with nullcontext() if name == "there" else pytest.raises(TrainerError, match="cannot be downloaded"):
                require_public_weights("resnet50")
        server.shutdown()
    assert not (tmp_path / "hub").exists()
