"""The proposals of a study: as Optuna makes them by itself, and the same again whatever happened in between."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIISampler

from tests import support
from tests.support import Json, run_here
from whetstone_trainer.ask import distribution, propose, trial_seed
from whetstone_trainer.protocol import AskSpec, Dimension
from whetstone_trainer.protocol_json import build

SEED = 7
POPULATION = 8


def dimension(name: str, **fields: Any) -> Json:
    empty = {"low": None, "high": None, "log": False, "step": None, "choices": None, "when": None}
    return {**empty, "name": name, "type": "CHOICE" if "choices" in fields else "FLOAT", **fields}


SPACE = [
    dimension("learningRate", low=1e-4, high=0.1, log=True),
    dimension("optimizer", choices=["ADAMW", "SGD"]),
    dimension("momentum", low=0.8, high=0.99, when={"name": "optimizer", "values": ["SGD"]}),
    dimension("imageSize", type="INT", low=32, high=128, step=16),
    dimension("batchSize", choices=[16, 32, 64]),
]


def ask_spec(**changes: Any) -> Json:
    return {
        **support.common("ASK"),
        "sampler": "NSGA2",
        "space": SPACE,
        "directions": ["MAXIMIZE", "MINIMIZE"],
        "population": POPULATION,
        "seed": SEED,
        "trials": [],
        "pending": [],
        "generation": 0,
        "count": POPULATION,
        **changes,
    }


def proposals(**changes: Any) -> list[Json]:
    return propose(build(AskSpec, ask_spec(**changes)))


def result(params: Json) -> list[float] | None:
    """As if it had been measured: a metric and a size. Some diverge, and values occur more than once."""
    if params["optimizer"] == "SGD" and params["learningRate"] > 0.03:
        return None
    metric = 1 - abs(math.log10(params["learningRate"]) + 2.5) / 3 + params["imageSize"] / 1000
    return [round(metric, 2), params["imageSize"] ** 2]


def trial(generation: int, params: Json) -> Json:
    return {"generation": generation, "params": params, "values": result(params)}


def tuned(generations: int, **changes: Any) -> list[Json]:
    trials: list[Json] = []
    for generation in range(generations):
        asked = proposals(trials=trials, generation=generation, **changes)
        trials += [trial(generation, params) for params in asked]
    return trials


def test_proposes_what_one_study_proposes_that_optuna_runs_by_itself() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    space = {one["name"]: distribution(build(Dimension, one)) for one in SPACE}
    for number in range(5 * POPULATION):
        study.sampler = NSGAIISampler(population_size=POPULATION, seed=trial_seed(SEED, number))
        asked = study.ask(space)
        study.tell(asked, result(asked.params) or [-math.inf, math.inf])
    wanted = [one.params for one in study.trials]
    assert [one["params"] for one in tuned(5)] == wanted
    assert any(result(params) is None for params in wanted)
    assert len({str(params) for params in wanted}) > 2 * POPULATION


@pytest.mark.parametrize("sampler", ["NSGA2", "RANDOM", "TPE"])
def test_a_generation_that_was_asked_for_in_parts_continues_as_it_began(sampler: str) -> None:
    directions = {"directions": ["MAXIMIZE"]} if sampler == "TPE" else {}
    one = {"sampler": sampler, **directions}
    trials = [{**t, "values": t["values"] and t["values"][: len(directions.get("directions", "12"))]} for t in tuned(2)]
    whole = proposals(trials=trials, generation=2, **one)
    assert whole == proposals(trials=trials, generation=2, **one)
    assert len(whole) == POPULATION
    assert len({str(params) for params in whole}) > 1


def test_the_rest_of_a_generation_is_proposed_as_by_a_study_that_went_on() -> None:
    trials = tuned(3)
    begun = [*trials, *(trial(3, params) for params in proposals(trials=trials, generation=3, count=3))]
    rest = proposals(trials=begun, generation=3, count=5)
    assert rest == [one["params"] for one in tuned(4)][-5:]


def test_another_seed_and_another_number_propose_others() -> None:
    assert proposals() != proposals(seed=SEED + 1)
    begun = proposals(pending=proposals(count=2), count=6)
    assert begun == proposals()[2:]


def test_a_grid_has_each_point_once_and_leaves_out_what_has_no_effect() -> None:
    space = [
        dimension("optimizer", choices=["ADAMW", "SGD"]),
        dimension("momentum", low=0.8, high=0.9, step=0.05, when={"name": "optimizer", "values": ["SGD"]}),
        dimension("imageSize", type="INT", low=32, high=64, step=32),
    ]
    points = proposals(sampler="GRID", space=space, population=100, count=100)
    assert [tuple(point.values()) for point in points] == [
        ("ADAMW", 0.8, 32),
        ("ADAMW", 0.8, 64),
        *(("SGD", momentum, size) for momentum in (0.8, 0.85, 0.9) for size in (32, 64)),
    ]
    trials = [{"generation": 0, "params": point, "values": [0, 0]} for point in points[:3]]
    assert proposals(sampler="GRID", space=space, trials=trials, generation=1, count=3) == points[3:6]


def test_the_job_says_what_matters_when_there_are_enough_trials(tmp_path: Path) -> None:
    code, few = run_here(tmp_path / "few", ask_spec(trials=tuned(1), generation=1))
    assert code == 0
    [done] = few.of("done")
    assert (len(done["result"]["proposals"]), done["result"]["importance"]) == (POPULATION, [])
    code, many = run_here(tmp_path / "many", ask_spec(trials=tuned(5, sampler="RANDOM"), generation=5, count=0))
    assert code == 0
    [done] = many.of("done")
    assert done["result"]["proposals"] == []
    importance = done["result"]["importance"]
    assert {one["name"] for one in importance} == {one["name"] for one in SPACE}
    assert sum(one["share"] for one in importance) == pytest.approx(1)
    assert [one["share"] for one in importance] == sorted((one["share"] for one in importance), reverse=True)


def test_a_generation_that_is_not_the_next_one_is_refused(tmp_path: Path) -> None:
    code, recorder = run_here(tmp_path, ask_spec(generation=1))
    assert code == 64
    assert "belongs to generation 0, not 1" in recorder.of("error")[0]["message"]
