"""The job ASK: the next trials of a study, and how much each hyperparameter matters.

A pure function of the specification, so that a server which was killed gets the same proposals again. Optuna's study
is rebuilt from the trials that have ended. Each proposal has a sampler of its own, seeded by the study's seed and the
number of the trial: a study that Optuna runs by itself with the same seeds proposes the same.
"""

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from whetstone_trainer.errors import TrainerError
from whetstone_trainer.events import Events
from whetstone_trainer.hello import emit_hello
from whetstone_trainer.protocol import AskSpec, Dimension

# At INFO it writes a line for each study and each trial.
optuna.logging.set_verbosity(optuna.logging.WARNING)

Params = dict[str, Any]

# NSGA-II keeps the generation of a trial here.
GENERATION = NSGAIISampler._get_generation_key()
# With fewer trials the best tenth is one or none: an importance would say nothing.
IMPORTANCE_TRIALS_MIN = 10


def run(spec: AskSpec, events: Events) -> dict[str, Any]:
    """Returns `AskResult` of the protocol."""
    emit_hello(events, spec.code_version, threads=spec.cpu_threads)
    events.phase("proposal", spec.count)
    return {"proposals": propose(spec), "importance": importance(spec)}


def propose(spec: AskSpec) -> list[Params]:
    """At most `spec.count` sets of parameters, for the trials behind those that are known."""
    if spec.sampler == "GRID":
        known = [*(trial.params for trial in spec.trials), *spec.pending]
        return list(itertools.islice((point for point in grid(spec.space) if point not in known), spec.count))
    study = _study(spec)
    space = {dimension.name: distribution(dimension) for dimension in spec.space}
    first = len(spec.trials) + len(spec.pending)
    return [_ask(study, space, number, spec) for number in range(first, first + spec.count)]


def _ask(study: optuna.Study, space: dict[str, BaseDistribution], number: int, spec: AskSpec) -> Params:
    study.sampler = sampler(spec, number)
    asked = study.ask(space)
    generation = study.get_trials(deepcopy=False)[number].system_attrs.get(GENERATION, spec.generation)
    if generation != spec.generation:
        raise TrainerError("SPEC_INVALID", f"Trial {number} belongs to generation {generation}, not {spec.generation}.")
    return asked.params


def sampler(spec: AskSpec, number: int) -> BaseSampler:
    seed = trial_seed(spec.seed, number)
    if spec.sampler == "RANDOM":
        return RandomSampler(seed=seed)
    if spec.sampler == "TPE":
        return TPESampler(seed=seed)
    return NSGAIISampler(population_size=spec.population, seed=seed)


def trial_seed(study_seed: int, number: int) -> int:
    """Of 32 bits, as NumPy's random state takes them."""
    return int.from_bytes(hashlib.sha256(f"{study_seed} {number}".encode()).digest()[:4], "big")


def distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.type == "CHOICE":
        return CategoricalDistribution(dimension.choices or ())
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.type == "INT":
        return IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step or 1)
        )
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _directions(spec: AskSpec) -> list[optuna.study.StudyDirection]:
    return [optuna.study.StudyDirection[direction] for direction in spec.directions]


def _study(spec: AskSpec) -> optuna.Study:
    """The study as it stands before the proposals."""
    study = optuna.create_study(directions=_directions(spec))
    space = {dimension.name: distribution(dimension) for dimension in spec.space}
    worst = [-math.inf if direction == "MAXIMIZE" else math.inf for direction in spec.directions]
    for trial in spec.trials:
        values = worst if trial.values is None else list(trial.values)
        attrs = {GENERATION: trial.generation}
        study.add_trial(create_trial(params=trial.params, distributions=space, values=values, system_attrs=attrs))
    for params in spec.pending:
        study.add_trial(create_trial(params=params, distributions=space, state=TrialState.RUNNING))
    if spec.sampler == "NSGA2":
        # Optuna selects the parents of a generation once, when its first trial is asked for. Their order matters: where
        # it has selected them already, it reads them in the order of their numbers.
        begun = any(trial.generation == spec.generation for trial in spec.trials)
        for generation in range(1, spec.generation + begun):
            NSGAIISampler(population_size=spec.population).get_parent_population(study, generation)
    return study


# ----------------------------------------------------------------------------------------------------------------- grid


def grid(space: tuple[Dimension, ...]) -> Iterator[Params]:
    """All points, the last dimension changing first. A dimension without effect at a point stays at its first value."""
    values = [_grid_values(dimension) for dimension in space]
    names = [dimension.name for dimension in space]
    for point in itertools.product(*values):
        params = dict(zip(names, point, strict=True))
        active = active_params(space, params)
        if all(name in active or params[name] == first for name, (first, *_) in zip(names, values, strict=True)):
            yield params


def _grid_values(dimension: Dimension) -> list[Any]:
    if dimension.type == "CHOICE":
        return list(dimension.choices or ())
    assert dimension.low is not None
    assert dimension.high is not None
    step = dimension.step or 1
    count = math.floor((dimension.high - dimension.low) / step + 1e-9) + 1
    points = [round(dimension.low + n * step, 12) for n in range(count)]
    return [int(point) for point in points] if dimension.type == "INT" else points


def active_params(space: tuple[Dimension, ...], params: Params) -> Params:
    """Those that have an effect, such as the momentum only with SGD."""
    conditions = {dimension.name: dimension.when for dimension in space}
    return {
        name: value
        for name, value in params.items()
        if (when := conditions[name]) is None or params[when.name] in when.values
    }


# ----------------------------------------------------------------------------------------------------------- importance


def importance(spec: AskSpec) -> list[dict[str, Any]]:
    """Of each hyperparameter for being among the best (PED-ANOVA): shares that add up to 1. Empty for few trials."""
    trials = [trial for trial in spec.trials if trial.values is not None]
    if len(trials) < IMPORTANCE_TRIALS_MIN:
        return []
    study = optuna.create_study(directions=_directions(spec))
    space = {dimension.name: distribution(dimension) for dimension in spec.space}
    for trial in trials:
        active = active_params(spec.space, trial.params)
        distributions = {name: space[name] for name in active}
        study.add_trial(create_trial(params=active, distributions=distributions, values=list(trial.values or ())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study)
    return [{"name": name, "share": share} for name, share in sorted(shares.items(), key=lambda one: (-one[1], one[0]))]
