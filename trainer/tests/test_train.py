"""The job TRAIN on 300 real digits: its events, and that it resumes after a stop and a kill."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import support
from tests.conftest import Trained
from tests.support import attempt, run_here, train_spec
from whetstone_trainer.checkpoint import load_checkpoint, save_checkpoint
from whetstone_trainer.hyperparameters import ClassificationHyperparameters
from whetstone_trainer.model import build_model, read_state, weights_hash
from whetstone_trainer.optimizer import AdamW
from whetstone_trainer.protocol_json import build, validator
from whetstone_trainer.state import RULES, Progress, Run
from whetstone_trainer.train import average, learning_rate


def weights_of(events: list[support.Json]) -> str:
    (digest,) = [event["meta"]["weightsHash"] for event in events if event.get("kind") == "WEIGHTS"]
    return str(digest)


def test_a_training_says_what_it_does_and_ends_well(trained: Trained) -> None:
    kinds = [event["type"] for event in trained.events]
    assert trained.exit_code == 0
    assert kinds[0] == "hello"
    assert kinds[-1] == "done"
    phases = [event["phase"] for event in trained.events if event["type"] == "phase"]
    assert phases == [
        "weights",
        *("caching", "caching"),
        *("training", "validation", "training", "validation"),
    ]
    first, second = [event for event in trained.events if event["type"] == "epoch"]
    assert (first["epoch"], first["step"], first["best"]) == (1, 7, True)
    assert (second["epoch"], second["step"]) == (2, 14)
    assert second["metrics"].keys() == {
        *("train.loss", "train.top1", "learningRate"),
        *("val.loss", "val.top1", "val.top5", "val.macroTop1"),
    }
    result = trained.events[-1]["result"]
    assert (trained.events[-1]["status"], result["epochs"], result["stoppedEarly"]) == ("ok", 2, False)


def test_its_artifacts_are_whole_and_described(trained: Trained) -> None:
    artifacts = [event for event in trained.events if event["type"] == "artifact"]
    assert [event["kind"] for event in artifacts] == ["WEIGHTS", "CHECKPOINT", "EVALUATION"]
    for event in artifacts:
        assert (trained.work_dir / event["file"]).stat().st_size == event["sizeBytes"]
    meta = trained.artifact("WEIGHTS")["meta"]
    state = read_state(trained.path("WEIGHTS"))
    assert meta["weightsHash"] == weights_hash(state)
    assert (meta["parameters"], meta["classCount"]) == (11_181_642, 10)
    assert meta["preprocess"] == trained.spec["preprocess"]
    evaluation = json.loads(trained.path("EVALUATION").read_text("utf-8"))
    assert evaluation["metrics"] == meta["metrics"]
    assert sum(map(sum, evaluation["confusion"])) == 60
    assert not list(validator("Evaluation").iter_errors(evaluation))
    assert not list(validator("WeightsMeta").iter_errors(meta))
    assert not list(validator("TrainResult").iter_errors(trained.events[-1]["result"]))
    assert not list(trained.work_dir.glob("*.tmp"))


def test_its_environment_is_recorded(trained: Trained) -> None:
    hello = trained.events[0]
    assert hello["versions"]["torch"] == torch.__version__.split("+")[0]
    assert hello["environment"]["codeVersion"] == "test"
    assert (hello["environment"]["threads"], hello["environment"]["workers"]) == (2, 0)
    assert hello["environment"]["precision"] == "FP32"
    assert hello["device"]["type"] == "cpu"
    assert hello["resumed"] is None


def test_bfloat16_is_recorded_where_the_processor_computes_with_it(trained: Trained, tmp_path: Path) -> None:
    found = torch.cpu.get_capabilities()
    parameters = {**trained.spec["hyperparameters"], "mixedPrecision": "BF16"}
    with attempt(tmp_path, {**trained.spec, "hyperparameters": parameters}) as running:
        hello, first = running.wait_for("hello"), running.wait_for("epoch")
    computes = found.get("avx512_bf16") or found.get("amx_bf16")
    assert hello["environment"]["precision"] == ("BF16" if computes else "FP32")
    undisturbed = next(event for event in trained.events if event["type"] == "epoch")
    assert (first["metrics"] != undisturbed["metrics"]) == bool(computes)


@pytest.mark.parametrize(
    "moments",
    [[(1, 1)], pytest.param([(0, 3), (1, 1)], marks=pytest.mark.long)],
    ids=["once", "twice"],
)
def test_killed_in_the_middle_of_an_epoch_it_ends_on_the_same_weights(
    trained: Trained, tmp_path: Path, moments: list[tuple[int, int]]
) -> None:
    """SIGKILL after a checkpoint inside an epoch; each attempt has its own folder, and another number of workers."""
    spec = {**trained.spec, "checkpointSeconds": 0, "workers": 1}
    resume: str | None = None
    for number, (epoch, batch) in enumerate(moments, 1):
        with attempt(tmp_path / str(number), {**spec, "resumeFrom": resume}, number) as running:
            hello = running.wait_for("hello")
            assert (hello["resumed"] is None) == (resume is None)
            checkpoint = running.wait_for("checkpoint", epoch=epoch, batch=batch)
            running.wait_for("batch", phase="training")
            os.killpg(running.process.pid, signal.SIGKILL)
            assert running.process.wait() == -signal.SIGKILL
            resume = str(running.work_dir / checkpoint["file"])
    spec = {**trained.spec, "resumeFrom": resume, "workers": 2}
    with attempt(tmp_path / "last", spec, len(moments) + 1) as running:
        hello = running.wait_for("hello")
        assert hello["resumed"] == {"epoch": 1, "batch": 1}
        assert hello["environment"]["workers"] == 2
        epoch_event = running.wait_for("epoch")
        weights = running.wait_for("artifact")
    assert weights["meta"]["weightsHash"] == weights_of(trained.events)
    undisturbed = [event for event in trained.events if event["type"] == "epoch"][1]
    assert epoch_event["metrics"] == undisturbed["metrics"]


def test_a_training_for_unequal_classes_resumes_to_the_same_weights(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "digits", 64, 20)
    changes = {
        **{"epochs": 2, "batchSize": 16},
        **{"classWeights": "BALANCED", "sampling": "BALANCED", "selectionMetric": "MACRO_TOP1"},
    }
    spec = train_spec(dataset, changes, checkpointSeconds=0)
    code, whole = run_here(tmp_path / "whole", spec)
    assert code == 0, whole.events[-1]
    code, first = run_here(tmp_path / "1", spec, type="checkpoint", epoch=0, batch=2)
    assert code == 75
    resume = str(tmp_path / "1" / first.of("checkpoint")[-1]["file"])
    code, second = run_here(tmp_path / "2", {**spec, "resumeFrom": resume})
    assert code == 0
    assert second.events[0]["resumed"] == {"epoch": 0, "batch": 2}
    assert weights_of(second.events) == weights_of(whole.events)
    # The weights of the classes reach the loss.
    _, plain = run_here(tmp_path / "plain", train_spec(dataset, {**changes, "classWeights": "NONE"}), type="epoch")
    losses = [recorder.of("epoch")[0]["metrics"]["train.loss"] for recorder in (plain, whole)]
    assert losses[0] != losses[1]
    macro = [event["metrics"]["val.macroTop1"] for event in whole.of("epoch")]
    assert whole.events[-1]["result"]["metrics"]["macroTop1"] == max(macro)


def test_accumulated_batches_are_steps_of_a_larger_batch(tmp_path: Path) -> None:
    """Frozen batch normalisation: otherwise it would see smaller batches."""
    dataset = support.write_digits(tmp_path / "digits", 32, 10)
    changes = {"epochs": 1, "freeze": "BACKBONE", "optimizer": "SGD", "learningRate": 1, "emaDecay": 0}
    found = []
    for size, accumulate in ((4, 4), (16, 1)):
        folder = tmp_path / str(size)
        spec = train_spec(dataset, {**changes, "batchSize": size, "accumulate": accumulate})
        code, recorder = run_here(folder, spec)
        assert code == 0, recorder.events[-1]
        found.append((recorder.of("epoch")[0]["step"], read_state(folder / "weights.safetensors")["fc.weight"]))
    (small, accumulated), (large, whole) = found
    assert (small, large) == (2, 2)
    assert torch.allclose(accumulated, whole, atol=1e-6)


def test_it_resumes_between_two_batches_of_an_accumulated_step(tmp_path: Path) -> None:
    dataset = support.write_digits(tmp_path / "digits", 40, 10)
    spec = train_spec(dataset, {"epochs": 1, "batchSize": 8, "accumulate": 3}, checkpointSeconds=0)
    code, whole = run_here(tmp_path / "whole", spec)
    assert code == 0, whole.events[-1]
    assert whole.of("epoch")[0]["step"] == 2
    code, first = run_here(tmp_path / "1", spec, type="checkpoint", epoch=0, batch=2)
    assert code == 75
    resume = str(tmp_path / "1" / first.of("checkpoint")[-1]["file"])
    code, second = run_here(tmp_path / "2", {**spec, "resumeFrom": resume, "workers": 1})
    assert code == 0
    assert second.events[0]["resumed"] == {"epoch": 0, "batch": 2}
    assert weights_of(second.events) == weights_of(whole.events)


def test_a_command_stops_it_at_a_checkpoint(trained: Trained, tmp_path: Path) -> None:
    with attempt(tmp_path, trained.spec) as running:
        running.wait_for("batch", phase="training")
        running.send("suspend")
        assert running.end() == 75
        (checkpoint,) = running.of("checkpoint")
        assert running.events[-1]["status"] == "suspended"
        assert running.events[-2] == checkpoint
        loaded = load_checkpoint(tmp_path / checkpoint["file"])
        assert (loaded.epoch, loaded.batch) == (checkpoint["epoch"], checkpoint["batch"])
        assert loaded.progress["step"] > 0


def test_a_finished_training_makes_the_same_again(trained: Trained, tmp_path: Path) -> None:
    """Its best epoch was in an earlier attempt, so it validates once more: to the same figures."""
    code, recorder = run_here(tmp_path, {**trained.spec, "resumeFrom": str(trained.path("CHECKPOINT"))})
    assert code == 0
    assert recorder.of("epoch") == []
    artifacts = [event for event in trained.events if event["type"] == "artifact"]
    assert [e["sha256"] for e in recorder.of("artifact")] == [e["sha256"] for e in artifacts]


@pytest.mark.long
def test_stopped_after_an_epoch_it_ends_with_what_it_has_and_resumes_to_the_same_weights(
    trained: Trained, tmp_path: Path
) -> None:
    code, first = run_here(tmp_path / "1", {**trained.spec, "stopAfterEpoch": 1})
    assert code == 0
    whole = [event for event in trained.events if event["type"] == "epoch"]
    assert [e["metrics"] for e in first.of("epoch")] == [whole[0]["metrics"]]
    (done,) = first.of("done")
    assert (done["result"]["epochs"], done["result"]["bestEpoch"], done["result"]["stoppedEarly"]) == (1, 1, False)
    file = next(e["file"] for e in first.of("artifact") if e["kind"] == "CHECKPOINT")
    code, second = run_here(tmp_path / "2", {**trained.spec, "resumeFrom": str(tmp_path / "1" / file)})
    assert code == 0
    assert second.events[0]["resumed"] == {"epoch": 1, "batch": 0}
    assert [e["metrics"] for e in second.of("epoch")] == [whole[1]["metrics"]]
    assert weights_of(second.events) == weights_of(trained.events)


def test_a_checkpoint_of_another_run_is_not_used(trained: Trained, tmp_path: Path) -> None:
    spec = {**trained.spec, "seed": 5, "resumeFrom": str(trained.path("CHECKPOINT"))}
    code, recorder = run_here(tmp_path, spec, phase="caching")
    assert code == 75
    assert recorder.events[0]["resumed"] is None
    assert [event["code"] for event in recorder.of("warning")] == ["CHECKPOINT_UNUSABLE"]


def test_a_checkpoint_of_other_rules_goes_on_and_the_job_says_so(trained: Trained, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained.path("CHECKPOINT"))
    for rules, codes in (({}, ["RULES_CHANGED"]), ({"rules": RULES}, [])):
        folder = tmp_path / str(len(rules))
        folder.mkdir()
        progress = {key: value for key, value in checkpoint.progress.items() if key != "rules"} | rules
        file = save_checkpoint(folder, replace(checkpoint, progress=progress))
        code, recorder = run_here(folder, {**trained.spec, "resumeFrom": str(folder / file)})
        assert code == 0
        assert recorder.events[0]["resumed"] == {"epoch": checkpoint.epoch, "batch": checkpoint.batch}
        assert [event["code"] for event in recorder.of("warning")] == codes


def test_more_epochs_continue_optimizer_and_schedule(trained: Trained, tmp_path: Path) -> None:
    spec = train_spec(
        trained.spec["dataset"],
        {"epochs": 3},
        init={"from": "CHECKPOINT", "file": str(trained.path("CHECKPOINT"))},
    )
    code, recorder = run_here(tmp_path, spec)
    assert code == 0
    (epoch,) = recorder.of("epoch")
    assert (epoch["epoch"], epoch["epochs"], epoch["step"], epoch["best"]) == (3, 3, 21, True)
    parameters = build(ClassificationHyperparameters, spec["hyperparameters"])
    assert epoch["metrics"]["learningRate"] == learning_rate(20, 21, parameters)
    memory = load_checkpoint(tmp_path / recorder.of("checkpoint")[-1]["file"]).tensors["optimizer"]
    assert float(memory["0/step"]) == 21


def test_a_run_without_average_continues_from_the_weights_that_the_optimizer_left(
    trained: Trained, tmp_path: Path
) -> None:
    init = {"from": "CHECKPOINT", "file": str(trained.path("CHECKPOINT"))}
    # A learning rate of nearly nothing: the weights stay as they were taken over.
    changes = {"epochs": 3, "emaDecay": 0, "learningRate": 1e-12}
    code, recorder = run_here(tmp_path, train_spec(trained.spec["dataset"], changes, init=init))
    assert code == 0, recorder.events[-1]
    earlier = load_checkpoint(trained.path("CHECKPOINT")).tensors
    weight = read_state(tmp_path / "weights.safetensors")["fc.weight"]
    assert torch.allclose(weight, earlier["model"]["fc.weight"], rtol=0, atol=1e-7)
    assert not torch.allclose(weight, earlier["ema"]["fc.weight"], rtol=0, atol=1e-5)


def test_a_training_of_three_steps_exports_trained_weights(tmp_path: Path) -> None:
    """50 images in batches of 32: one step an epoch."""
    dataset = support.write_digits(tmp_path / "digits", 50, 20)
    spec = train_spec(dataset, {"epochs": 3, "batchSize": 32, "learningRate": 0.01})
    code, recorder = run_here(tmp_path, spec)
    assert code == 0, recorder.events[-1]
    torch.manual_seed(0)
    initial = build_model("resnet18", 10).state_dict()["fc.weight"]
    checkpoint = load_checkpoint(tmp_path / recorder.of("checkpoint")[-1]["file"]).tensors
    trained, averaged = checkpoint["model"]["fc.weight"], checkpoint["ema"]["fc.weight"]
    assert (averaged - trained).norm() < 0.5 * (averaged - initial).norm()
    exported = read_state(tmp_path / "weights.safetensors")["fc.weight"]
    assert (exported - initial).norm() > 0.1 * (trained - initial).norm()


def test_the_average_moves_by_several_steps_with_the_product_of_their_decays() -> None:
    model, ema = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = ema.weight.detach().clone()
    sums = torch.zeros(1)
    training = Run(model, ema, AdamW([]), torch.amp.GradScaler(), sums, {}, Progress(step=5))
    average(training, 0.3, 4)
    # Of the steps 2 to 5; the decay warms up.
    decay = 3 / 12 * 0.3**3
    assert torch.allclose(ema.weight, decay * before + (1 - decay) * model.weight)


def test_no_more_epochs_than_there_were_is_refused(trained: Trained, tmp_path: Path) -> None:
    init = {"from": "CHECKPOINT", "file": str(trained.path("CHECKPOINT"))}
    code, recorder = run_here(tmp_path, train_spec(trained.spec["dataset"], {"epochs": 2}, init=init))
    assert code == 64
    assert "more than 2" in recorder.events[-1]["message"]


def test_weights_of_other_classes_get_a_new_head(trained: Trained, tmp_path: Path) -> None:
    dataset = {**trained.spec["dataset"], "classes": [*trained.spec["dataset"]["classes"], "none"]}
    spec = train_spec(
        dataset, {"epochs": 1}, init={"from": "WEIGHTS", "file": str(trained.path("WEIGHTS")), "classes": None}
    )
    code, recorder = run_here(tmp_path, spec)
    assert code == 0
    (warning,) = recorder.of("warning")
    assert warning["code"] == "HEAD_REPLACED"
    assert "fc.weight, fc.bias" in warning["message"]
    assert read_state(tmp_path / "weights.safetensors")["fc.weight"].shape == (11, 512)


def test_weights_of_the_same_number_of_other_classes_are_matched_by_name(trained: Trained, tmp_path: Path) -> None:
    """The dataset's classes are those of the weights in another order, and one that they do not know."""
    earlier = trained.spec["dataset"]["classes"]
    dataset = {**trained.spec["dataset"], "classes": [*reversed(earlier[1:]), "none"]}
    # A learning rate of nearly nothing: the weights stay as they were taken over.
    changes = {"epochs": 1, "learningRate": 1e-12, "emaDecay": 0}
    weights = read_state(trained.path("WEIGHTS"))["fc.weight"]
    init = {"from": "WEIGHTS", "file": str(trained.path("WEIGHTS"))}
    for known, message in ((earlier, "9 classes keep .* by name; 1 start from random values: none"), (None, "random")):
        folder = tmp_path / str(known is None)
        spec = train_spec(dataset, changes, init={**init, "classes": known})
        code, recorder = run_here(folder, spec)
        assert code == 0, recorder.events[-1]
        (warning,) = recorder.of("warning")
        assert warning["code"] == "CLASSES_MATCHED"
        assert re.search(message, warning["message"])
        found = read_state(folder / "weights.safetensors")["fc.weight"]
        kept = [torch.allclose(found[n], weights[9 - n], rtol=0, atol=1e-6) for n in range(9)]
        assert all(kept) if known else not any(kept)
        assert not torch.allclose(found[9], weights[9], rtol=0, atol=1e-3)


def test_weights_of_the_same_classes_are_taken_over_as_they_are(trained: Trained, tmp_path: Path) -> None:
    init = {"from": "WEIGHTS", "file": str(trained.path("WEIGHTS")), "classes": trained.spec["dataset"]["classes"]}
    _, recorder = run_here(tmp_path, train_spec(trained.spec["dataset"], init=init), phase="caching")
    assert recorder.of("warning") == []


def test_sgd_without_average_with_clipping_and_early_stopping(digits: support.Json, tmp_path: Path) -> None:
    """A learning rate of nearly nothing: no epoch is better than the first, so it stops after the second."""
    changes = {
        **{"epochs": 9, "optimizer": "SGD", "learningRate": 1e-12, "emaDecay": 0, "gradientClip": 1.0},
        **{"earlyStopping": 1, "cropScale": 1.0, "erasing": 0.5, "colorJitter": 0.0, "batchSize": 120},
    }
    code, recorder = run_here(tmp_path, train_spec(digits, changes))
    assert code == 0
    bests = [event["best"] for event in recorder.of("epoch")]
    assert bests[0]
    assert not bests[-1]
    assert len(bests) < 9
    checkpoint = load_checkpoint(tmp_path / recorder.of("checkpoint")[-1]["file"])
    assert checkpoint.progress["stoppedEarly"]
    assert "ema" not in checkpoint.tensors
    assert any(name.endswith("/momentum_buffer") for name in checkpoint.tensors["optimizer"])
