"""What the model is and how it is trained: typed, frozen, the same defaults for every data set.

Every number says its range where it is declared, and ``settings`` checks it when an instance is made, whoever makes it.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

Aggregate = Literal["sum", "days"]
Kind = Literal["count", "money", "ratio"]
Architecture = Literal["m2m", "mmoe", "shared_bottom"]

ACTIVE = "active"  # reserved metric: any performance metric above zero that day

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Within:
    """The range of a number or a day, both ends included; ``why`` says what its ends are good for."""

    least: Any
    most: Any
    why: str = ""

    def fault(self, value: Any) -> str:
        """What must hold, in words; empty where it does. NaN never does."""
        if self.least <= value <= self.most:
            return ""
        return f"must be from {self.least} to {self.most}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True)
class Matching:
    """The form of a text: what a regular expression says, in ``words``."""

    pattern: str
    words: str

    def fault(self, value: object) -> str:
        return "" if re.fullmatch(self.pattern, str(value)) else f"must be {self.words}"


@dataclass(frozen=True)
class Listed:
    """One of the names of a table in another module. Who adds one adds it there alone; the module, which may be a slow
    one, is imported when a name other than the ``usual`` one is asked for."""

    module: str
    table: str
    usual: str

    def fault(self, value: str) -> str:
        known = {self.usual} if value == self.usual else set(getattr(import_module(self.module), self.table))
        return "" if value in known else f"must be one of {', '.join(sorted({self.usual, *known}))}"


# Of a metric, task or attribute: it becomes a column and part of an address. Our own columns beside them begin with _.
Name = Annotated[
    str, Matching("[A-Za-z][A-Za-z0-9_]{0,63}", "letters, digits and underscores, a letter first, at most 64 of them")
]
Days = Annotated[int, Within(1, 3660, "ten years")]
Depth = Annotated[int, Within(1, 16)]
Dropout = Annotated[float, Within(0, 0.95)]


@dataclass_transform(frozen_default=True)
def settings(cls: type[Settings]) -> type[Settings]:
    """A frozen dataclass that cannot be made with a value outside its annotations: a ``Literal``, or ``Annotated`` with
    objects that have a ``fault``. What several fields say together stands in its ``__post_init__``.

    Raises (when an instance is made):
        ValueError: names the field, the value and what must hold.
    """
    together: Callable[[Any], None] | None = vars(cls).get("__post_init__")

    def check(self: Any) -> None:
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            value = getattr(self, name)
            if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
                raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, typing.get_args(hint)))}")
            for rule in getattr(hint, "__metadata__", ()):
                if fault := rule.fault(value):
                    raise ValueError(
                        f"{name}{f' = {value!r}' if isinstance(value, int | float | str) else ''}: {fault}"
                    )
        if together:
            together(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


@settings
class Task:
    """A total over the horizon: the sum of ``metric``, or the number of days on which it is above zero."""

    name: Name
    metric: Name
    aggregate: Aggregate

    def __post_init__(self) -> None:
        if self.metric == ACTIVE and self.aggregate != "days":
            raise ValueError(f'task {self.name}: metric "{ACTIVE}" has no sum; use aggregate = "days"')


@settings
class KnownFuture:
    """What is known of days to come: a plan (a budget, a price), or the public holidays of a country.

    A day's plans are totals over the days after it, or the mean of a ``ratio``. ``of`` is the metric in whose unit the
    plan is. ``country`` (ISO 3166: GB, DE-BY), or the attribute that holds it, makes it that country's holidays.
    """

    name: Name
    kind: Kind = "count"
    of: Name | None = None
    country: Annotated[str, Matching(r"|[A-Z]{2}(-[A-Z0-9]{1,3})?", "a code of ISO 3166, such as GB or DE-BY")] = ""
    country_attribute: Name | None = None

    def __post_init__(self) -> None:
        if self.country and self.country_attribute:
            raise ValueError("country and country_attribute both say whose holidays are meant; give one of them")
        if self.is_holidays and (self.of or self.kind != "count"):
            raise ValueError("holidays are counted: leave kind and of out")

    @property
    def is_holidays(self) -> bool:
        """Whether it comes from the calendar, and not from the data set's own plans."""
        return bool(self.country or self.country_attribute)


@settings
class ModelConfig:
    """M2M (Zhang et al., WSDM 2022). The paper's own form: ``loss="poisson", patch_days=1, meta_rank=0,
    exposure_offset=False, level_weights=False, window_features=False, scenario_dropout=0``. Ablations:
    ``meta_attention``, ``meta_tower``, ``transformer``."""

    architecture: Architecture = "m2m"
    loss: Annotated[str, Listed("m2m_model.network.laws", "TOTALS", "histogram")] = "histogram"
    width: Annotated[int, Within(1, 2048)] = 64  # d: embeddings, experts, towers, S~
    heads: Annotated[int, Within(1, 64)] = 4
    layers: Depth = 1  # transformer layers per sequence
    experts: Annotated[int, Within(1, 64)] = 4
    meta_depth: Depth = 1  # generated layers of the meta unit inside the attention
    tower_depth: Depth = 1  # generated layers of the meta tower
    # 0 = full generated matrices; r = an r x r generated core between shared factors
    meta_rank: Annotated[int, Within(0, 256)] = 16
    patch_days: Annotated[int, Within(1, 366)] = 7  # days per token; 1 = the paper's daily tokens
    # value bins per metric, besides zero, missing and not registered
    bins: Annotated[int, Within(1, 250, "a code is one byte")] = 32
    ratio_bins: Annotated[int, Within(1, 1000)] = 60  # classes of the histogram loss, besides zero
    dropout: Dropout = 0.1
    scenario_dropout: Dropout = 0.05  # scenario id and attributes become unknown at random: "unknown" is trained
    exposure_offset: bool = True  # parametric losses: log of the mean = log(recent level) + f(x)
    level_weights: bool = True  # loss weight sqrt(level)
    meta_attention: bool = True
    meta_tower: bool = True
    transformer: bool = True
    window_features: bool = True  # rates, weeks and single days beside the sequence

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} must be a multiple of heads = {self.heads}")


@settings
class TrainConfig:
    """The training run. ``batch_size`` and ``max_windows`` count windows over all ranks together."""

    epochs: Annotated[int, Within(1, 10_000)] = 6
    # of the whole run: what bounds its time on large data
    max_windows: Annotated[int, Within(1, 10**9)] = 300_000
    min_steps: Annotated[int, Within(0, 10**7)] = 400  # of the whole run: small data is walked through more often
    batch_size: Annotated[int, Within(1, 2**20)] = 256
    learning_rate: Annotated[float, Within(1e-8, 1)] = 2e-3
    weight_decay: Annotated[float, Within(0, 10)] = 1e-2
    gradient_clip: Annotated[float, Within(1e-6, 1e6)] = 1.0
    seed: Annotated[int, Within(0, 2**32 - 1)] = 1
    # at most; fewer where they would take more than a third of the history
    validation_cutoffs: Annotated[int, Within(1, 100)] = 4
    # rows of the validation cutoffs that are scored each epoch and calibrated on
    validation_windows: Annotated[int, Within(1, 10**8)] = 50_000
    min_history_days: Days = 1  # registered days of a series at a training cutoff
    patience: Annotated[int, Within(1, 10_000)] = 3  # epochs without a better validation NMAE before the run stops
    boosted: bool = True  # fit LightGBM too, the baseline to beat
    blend: bool = True  # with the simple forecast that validation would have chosen
    refit: bool = False  # on all labels, once more, for what is served (docs/model.md)
    checkpoint_every_steps: Annotated[int, Within(1, 10**7)] = 400


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
