"""The network and one other forecast together: weights per target, and per scenario where there are rows enough.

Learned on validation cutoffs, never on held-out ones. A network extrapolates trends; on small, regular sets last week's
figures or LightGBM are better, and validation sees it. The other forecast is the *anchor*: what validation would have
chosen without a network. The network takes from it only what it wins by more than the cutoffs differ. A learned
baseline is the anchor only where that wins surely over a simple one as the anchor: of seven, on few cutoffs, one is
always lucky, and it costs its fitting and loading. For the same reason a scenario has a share of its own only where
that surely wins over what serves all scenarios.

N rows, M targets, W candidate weights, D cutoffs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from m2m_model.arrays import Bools, Floats, Ints, Strings
from m2m_model.forecasts.cells import CELL_ROWS, codes_of
from m2m_model.forecasts.distribution import Distribution, pool
from m2m_model.forecasts.methods import M2M, blended, own_method
from m2m_model.forecasts.metrics import symmetric_error

WEIGHTS: Floats = np.arange(11) / 10  # of the network; the anchor has the rest
CAUTION = 1.25  # standard errors by which a weight must not lose to the anchor
SIMPLER = 1.0  # standard errors by which a learned anchor must win over a simple one, and a scenario's own share
SHARED = 4.0  # rows of a date rise and fall together: their chance counts as if they were a quarter as many


@dataclass(frozen=True)
class Share:
    """One target (of one scenario): the anchor's name and the network's weight."""

    anchor: str
    network: float

    @property
    def method(self) -> str:
        """Who makes the figures: the network, the anchor, or both."""
        if self.network in (0, 1):
            return M2M if self.network else own_method(self.anchor)
        return blended(self.anchor, self.network)


@dataclass(frozen=True)
class Blend:
    """Which anchor, and how much of the network, per target and per large scenario."""

    tasks: tuple[Share, ...]
    scenarios: Mapping[str, tuple[Share, ...]]

    @classmethod
    def fit(
        cls,
        network_NM: Floats,
        simple: Mapping[str, Floats],
        actual_NM: Floats,
        scenario_N: Strings,
        cutoff_N: Ints,
        whole_M: Sequence[bool] = (),
        learned: Mapping[str, Floats] | None = None,
    ) -> Blend:
        """Learn from the points of the network, the simple forecasts and ``learned`` baselines on N validation rows.

        ``whole_M``: targets whose points are published as whole numbers, and judged as such.
        """

        columns = range(actual_NM.shape[1])

        def seen(rows: Bools, m: int) -> _Seen:
            plain, other = (
                {name: said_NM[rows, m] for name, said_NM in said.items()} for said in (simple, learned or {})
            )
            whole = m < len(whole_M) and whole_M[m]
            return _Seen(network_NM[rows, m], plain, other, actual_NM[rows, m], cutoff_N[rows], whole)

        everywhere = tuple(seen(np.ones(len(actual_NM), bool), m).share() for m in columns)
        names, scenarios = scenario_N.astype(str), dict[str, tuple[Share, ...]]()
        for name in np.unique(names):
            if (rows := names == name).sum() >= CELL_ROWS:
                own = tuple(seen(rows, m).share(everywhere[m]) for m in columns)
                if own != everywhere:
                    scenarios[str(name)] = own
        return cls(everywhere, scenarios)

    @property
    def anchors(self) -> tuple[str, ...]:
        """Every other forecast that some cell uses."""
        return tuple(sorted({share.anchor for _, _, share in self._shares() if share.network < 1}))

    def targets_with(self, anchor: str) -> frozenset[int]:
        """The targets, by number, that some cell uses an anchor for."""
        return frozenset(m for _, m, share in self._shares() if share.anchor == anchor and share.network < 1)

    def apply(self, network: Distribution, simple: Mapping[str, Distribution], scenario_N: Strings) -> Distribution:
        """The pooled distributions of N rows; ``simple`` holds at least the ``anchors``."""
        names, code_N = self.anchors, codes_of(scenario_N, list(self.scenarios))
        weight_PSM = np.zeros((1 + len(names), len(self.scenarios) + 1, len(self.tasks)))
        for s, m, share in self._shares():
            weight_PSM[0, s, m] = share.network
            if share.network < 1:
                weight_PSM[1 + names.index(share.anchor), s, m] = 1 - share.network
        weight_PNM = weight_PSM[:, code_N]
        pooled = pool([network, *(simple[name] for name in names)], weight_PNM)
        return replace(pooled, point_NM=keep_zeros(network.point_NM, pooled.point_NM, weight_PNM[0]))

    def methods(self, scenario_N: Strings) -> Strings:
        """Who makes each figure of N rows, (N, M)."""
        method_SM = np.empty((len(self.scenarios) + 1, len(self.tasks)), object)
        for s, m, share in self._shares():
            method_SM[s, m] = share.method
        return method_SM[codes_of(scenario_N, list(self.scenarios))]

    def _shares(self) -> Iterator[tuple[int, int, Share]]:
        """The code of each scenario with shares of its own, and last of all others; each task; its share."""
        for s, cell in enumerate([*self.scenarios.values(), self.tasks]):
            for m, share in enumerate(cell):
                yield s, m, share

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Blend:
        """The inverse of ``to_dict``."""

        def read(cell: Sequence[Mapping[str, Any]]) -> tuple[Share, ...]:
            return tuple(Share(**share) for share in cell)

        return cls(read(values["tasks"]), {name: read(cell) for name, cell in values["scenarios"].items()})


@dataclass(frozen=True)
class _Seen:
    """X rows of one target, and what each forecast said of them."""

    network_X: Floats
    simple: Mapping[str, Floats]
    learned: Mapping[str, Floats]
    actual_X: Floats
    cutoff_X: Ints
    whole: bool  # published as whole numbers

    def share(self, elsewhere: Share | None = None) -> Share:
        """With a simple forecast as the anchor, or with a learned one where that is surely better; but what serves
        ``elsewhere`` too, unless it is surely worse here."""
        found = self._best(self.simple)
        if self.learned:
            found = self._surely_better(self._best(self.learned), found)
        return found if elsewhere is None else self._surely_better(found, elsewhere)

    def _best(self, anchors: Mapping[str, Floats]) -> Share:
        """The anchor with the least absolute error; of the weights that surely do not lose to it there, the one with
        the least of both errors, absolute and SMAPE, each over the anchor's."""
        anchor = min(anchors, key=lambda name: float(np.abs(self.actual_X - anchors[name]).sum()))
        shares = [Share(anchor, float(weight)) for weight in WEIGHTS]
        sure_W, both_W = self._against_first(shares, CAUTION)
        return shares[int(np.argmin(np.where(sure_W <= 0, both_W, np.inf)))]

    def _surely_better(self, share: Share, usual: Share) -> Share:
        sure_W, both_W = self._against_first([usual, share], SIMPLER)
        return share if sure_W[1] < 0 and both_W[1] < both_W[0] else usual

    def _against_first(self, shares: Sequence[Share], caution: float) -> tuple[Floats, Floats]:
        """Of W shares: by how much each loses to the first in absolute error, so many standard errors added, over the
        first's on a mean cutoff; and by how much in both errors, absolute and SMAPE."""
        actual_X, cutoffs = self.actual_X, np.unique(self.cutoff_X)
        said_WX = np.stack([self._points(share) for share in shares])

        def gain(error_WX: Floats) -> Floats:
            """A cutoff counts by what happened on it."""
            return np.asarray((error_WX - error_WX[0]) / max(error_WX[0].sum() / len(cutoffs), 1e-12))

        gain_WX = gain(np.abs(actual_X - said_WX))
        gain_WD = np.stack([gain_WX[:, self.cutoff_X == day].sum(1) for day in cutoffs], 1)
        # How much of a cutoff's gain is chance shows in how cutoffs differ, and, where they are few, in how rows do.
        between_W = gain_WD.var(1)
        within_W = gain_WX.var(1) * len(actual_X) / len(cutoffs)
        spread_W = np.sqrt((between_W + SHARED * within_W / len(cutoffs)) / len(cutoffs))
        relative_WX = gain(symmetric_error(said_WX, np.broadcast_to(actual_X, said_WX.shape)))
        return gain_WD.mean(1) + caution * spread_W, gain_WD.mean(1) + relative_WX.sum(1) / len(cutoffs)

    def _points(self, share: Share) -> Floats:
        """What would be published."""
        return mixed(self.network_X, {**self.simple, **self.learned}[share.anchor], share.network, self.whole)


def mixed(network_x: Floats, anchor_x: Floats, weight_x: Floats | float, whole: bool) -> Floats:
    """The points that a weight of the network publishes; ``whole``: as whole numbers."""
    mixed_x = keep_zeros(network_x, weight_x * network_x + (1 - weight_x) * anchor_x, weight_x)
    return np.round(mixed_x) if whole else mixed_x


def keep_zeros(network_x: Floats, mixed_x: Floats, weight_x: Floats | float) -> Floats:
    """A zero that the network is sure of is not made a little more than zero by last week."""
    return np.asarray(np.where((network_x == 0) & (weight_x >= 0.5), 0.0, mixed_x))
