"""What the model is and how it is trained: typed, frozen, the same defaults for every data set."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Aggregate = Literal["sum", "days"]
Architecture = Literal["m2m", "mmoe", "shared_bottom"]
Loss = Literal["histogram", "negative_binomial", "lognormal", "poisson"]

ACTIVE = "active"  # reserved metric: any performance metric above zero that day

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Task:
    """A total over the horizon: the sum of ``metric``, or the number of days on which it is above zero."""

    name: str
    metric: str
    aggregate: Aggregate

    def __post_init__(self) -> None:
        _one_of("aggregate", self.aggregate, Aggregate)
        if self.metric == ACTIVE and self.aggregate != "days":
            raise ValueError(f'task {self.name}: metric "{ACTIVE}" has no sum; use aggregate = "days"')


@dataclass(frozen=True)
class ModelConfig:
    """M2M (Zhang et al., WSDM 2022). The paper's own form: ``loss="poisson", patch_days=1, meta_rank=0,
    exposure_offset=False, level_weights=False, window_features=False, scenario_dropout=0``. Ablations:
    ``meta_attention``, ``meta_tower``, ``transformer``."""

    architecture: Architecture = "m2m"
    loss: Loss = "histogram"
    width: int = 64  # d: embeddings, experts, towers, S~
    heads: int = 4
    layers: int = 1  # transformer layers per sequence
    experts: int = 4
    meta_depth: int = 1  # generated layers of the meta unit inside the attention
    tower_depth: int = 1  # generated layers of the meta tower
    meta_rank: int = 16  # 0 = full generated matrices; r = an r x r generated core between shared factors
    patch_days: int = 7  # days per token; 1 = the paper's daily tokens
    bins: int = 32  # value bins per metric, besides zero, missing and not registered
    ratio_bins: int = 60  # classes of the histogram loss, besides zero
    dropout: float = 0.1
    scenario_dropout: float = 0.05  # scenario id and attributes become unknown at random, so that "unknown" is trained
    exposure_offset: bool = True  # parametric losses: log of the mean = log(recent level) + f(x)
    level_weights: bool = True  # loss weight sqrt(level)
    meta_attention: bool = True
    meta_tower: bool = True
    transformer: bool = True
    window_features: bool = True  # rates, weeks and single days beside the sequence

    def __post_init__(self) -> None:
        _one_of("architecture", self.architecture, Architecture)
        _one_of("loss", self.loss, Loss)
        for name in (
            "width",
            "heads",
            "layers",
            "experts",
            "meta_depth",
            "tower_depth",
            "patch_days",
            "bins",
            "ratio_bins",
        ):
            _at_least(name, getattr(self, name), 1)
        _at_least("meta_rank", self.meta_rank, 0)
        for name in ("dropout", "scenario_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1)")
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} must be a multiple of heads = {self.heads}")


@dataclass(frozen=True)
class TrainConfig:
    """The training run. ``batch_size`` and ``max_windows`` count windows over all ranks together."""

    epochs: int = 6
    max_windows: int = 300_000  # of the whole run: what bounds its time on large data
    min_steps: int = 400  # of the whole run: small data is walked through more often
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    seed: int = 1
    validation_cutoffs: int = 4  # at most; fewer where they would take more than a third of the history
    validation_windows: int = 50_000  # rows of the validation cutoffs that are scored each epoch and calibrated on
    min_history_days: int = 14  # registered days of a series at a training cutoff
    patience: int = 3  # epochs without a better validation NMAE before the run stops
    boosted: bool = True  # fit LightGBM too, the baseline to beat
    blend: bool = True  # with the simple forecast that validation would have chosen
    checkpoint_every_steps: int = 400

    def __post_init__(self) -> None:
        for name in ("epochs", "max_windows", "batch_size", "validation_cutoffs", "validation_windows"):
            _at_least(name, getattr(self, name), 1)
        for name in ("min_history_days", "patience", "checkpoint_every_steps"):
            _at_least(name, getattr(self, name), 1)
        for name in ("min_steps", "seed"):
            _at_least(name, getattr(self, name), 0)
        if not (self.learning_rate > 0 and self.gradient_clip > 0 and self.weight_decay >= 0):
            raise ValueError("learning_rate and gradient_clip must be above 0, weight_decay at least 0")


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain values for JSON or TOML."""
    return dataclasses.asdict(settings)


def from_dict(cls: type[Settings], values: dict[str, Any]) -> Settings:
    """The inverse of ``to_dict``.

    Raises:
        ValueError: a key is unknown, or a value is out of range.
    """
    known = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{cls.__name__}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return cls(**values)


def _one_of(name: str, value: object, allowed: Any) -> None:
    if value not in typing.get_args(allowed):
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, typing.get_args(allowed)))}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} = {value}: must be at least {least}")
