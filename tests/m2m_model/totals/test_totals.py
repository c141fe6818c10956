from collections.abc import Callable
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from m2m_model.data.activity import activity_NM
from m2m_model.data.panel import Panel
from m2m_model.data.served_by import eligible
from m2m_model.data.spec import SequenceSpec
from m2m_model.data.targets import targets_Nm
from m2m_model.forecasts.baselines import BASELINES
from m2m_model.forecasts.calibration import Dependence, ResidualQuantiles, Shared
from m2m_model.forecasts.distribution import Distribution
from m2m_model.forecasts.forecasts import FIGURES, Forecasts, forecast_baseline
from m2m_model.levels import LEVELS, PUBLISHED
from m2m_model.totals.dependence import fit_dependence
from m2m_model.totals.sampler import SAMPLES, Sampler
from m2m_model.totals.sums import GROUP, SUM_SCHEMA, TOTAL_SCHEMA, add_up, added, finish

USUAL = Dependence((Shared(0.1, 0.05, {"search": 0.2}, 0.1, 4),) * 3)


@pytest.fixture(scope="module")
def panel(make_table: Callable[..., pa.Table], spec: SequenceSpec, last_day: date) -> Panel:
    """Half of the advertisers in both scenarios."""
    table = make_table()
    names = pa.array([f"a{k // 2 if k % 4 < 2 else 100 + k:03d}" for k in range(len(table))])
    table = table.set_column(table.schema.get_field_index("advertiser_id"), "advertiser_id", names)
    return Panel.from_sequences(table, spec, last_day, 120)


@pytest.fixture(scope="module")
def forecasts(panel: Panel) -> Forecasts:
    cutoff = panel.index_of(panel.last_day) - 14
    series = np.flatnonzero(eligible(panel, cutoff))
    learned = ResidualQuantiles.fit(
        BASELINES["mean_28"](panel, cutoff, series),
        targets_Nm(panel, cutoff, series),
        panel.scenario_N[series],
        activity_NM(panel, cutoff, series),
        panel.spec.targets,
    )
    calibrations = {"mean_28": learned, "cold_start": learned, "silent": learned}
    return forecast_baseline("mean_28", panel, panel.last_day, calibrations, all_series=True)


def totals(forecasts: Forecasts, panel: Panel, dependence: Dependence = USUAL) -> pa.Table:
    advertisers, sums = add_up(forecasts, panel, Sampler(dependence), attributes(panel))
    return pa.concat_tables([advertisers, finish(added([sums]), panel.spec)])


def attributes(panel: Panel) -> dict[str, list[str]]:
    names = (*panel.spec.advertiser_attributes, *panel.spec.scenario_attributes)
    return {name: sorted(pc.unique(panel.keys[name].drop_null()).to_pylist())[:2] for name in names}


def of(table: pa.Table, **wanted: str) -> pa.Table:
    for name, value in wanted.items():
        table = table.filter(pc.field(name) == value)
    return table


def test_means_are_the_sums_of_their_parts(forecasts: Forecasts, panel: Panel) -> None:
    found = totals(forecasts, panel)
    assert found.schema.names == TOTAL_SCHEMA.names
    groups: list[tuple[str, str | None]] = [("platform", None), ("scenario", None), ("advertiser", None)]
    groups += [("attribute", name) for name in attributes(panel)]
    for m, task in enumerate(panel.spec.tasks):
        whole = forecasts.distribution.mean_NM[:, m].sum()
        for level, name in groups:
            rows = of(found, level=level, task=task.name)
            rows = of(rows, name=name) if name else rows
            assert sum(rows["mean"].to_pylist()) == pytest.approx(whole), (level, name)
            assert sum(rows["series"].to_pylist()) == len(forecasts.series_N)
    assert of(found, level="attribute")["value"].null_count  # beyond the known values


def test_each_group_has_one_row_a_task_and_ordered_quantiles(forecasts: Forecasts, panel: Panel) -> None:
    found = totals(forecasts, panel)
    keys = list(zip(*(found[name].to_pylist() for name in GROUP), strict=True))
    assert len(set(keys)) == len(keys)
    level_QK = np.stack([found[name].to_numpy() for name in ("p05", "p25", "median", "p75", "p95")])
    assert (np.diff(level_QK, axis=0) >= 0).all()
    assert (level_QK >= 0).all()
    assert np.isfinite(np.stack([found[name].to_numpy() for name in FIGURES])).all()
    days = of(found, task="active_days")
    for name in ("point", "p05", "median", "p95"):
        figure_K = days[name].to_numpy()
        assert (figure_K == np.rint(figure_K)).all()
        assert (figure_K <= days["series"].to_numpy() * panel.spec.horizon_days).all()


def test_an_advertiser_in_one_scenario_has_the_figures_of_its_series(forecasts: Forecasts, panel: Panel) -> None:
    found = of(totals(forecasts, panel), level="advertiser", task="clicks")
    names, counts = np.unique(forecasts.advertiser_N.astype(str), return_counts=True)
    alone = set(names[counts == 1])
    m = [task.name for task in panel.spec.tasks].index("clicks")
    rows = [n for n, name in enumerate(forecasts.advertiser_N) if name in alone]
    assert rows
    assert len(rows) < len(forecasts.series_N)
    for n in rows:
        row = of(found, value=forecasts.advertiser_N[n]).to_pylist()[0]
        for name in FIGURES:
            assert row[name] == getattr(forecasts.distribution, f"{name}_NM")[n, m]


def test_buckets_add_up_to_the_whole_and_reruns_are_identical(forecasts: Forecasts, panel: Panel) -> None:
    whole, again = (totals(forecasts, panel) for _ in range(2))
    assert whole.equals(again)
    owner_N = panel.advertiser_index_N[forecasts.series_N]
    parts = [add_up(forecasts[owner_N % 3 == k], panel, Sampler(USUAL), attributes(panel)) for k in range(3)]
    groups = finish(added(sums for _, sums in parts), panel.spec)
    together = pa.concat_tables([*(advertisers for advertisers, _ in parts), groups])
    order = [(name, "ascending") for name in GROUP]
    for one, other in zip(whole.sort_by(order).to_pylist(), together.sort_by(order).to_pylist(), strict=True):
        assert [one[name] for name in (*GROUP, "series")] == [other[name] for name in (*GROUP, "series")]
        assert [one[name] for name in FIGURES] == pytest.approx([other[name] for name in FIGURES], rel=1e-4, abs=1e-6)


def test_no_forecast_has_no_total(forecasts: Forecasts, panel: Panel) -> None:
    advertisers, sums = add_up(forecasts[:0], panel, Sampler(USUAL), {})
    assert advertisers.num_rows == 0
    assert sums.num_rows == 0
    assert added([]).schema.equals(SUM_SCHEMA)
    assert finish(added([sums]), panel.spec).num_rows == 0


@pytest.mark.filterwarnings("error")
def test_a_faulty_forecast_is_for_the_checks_to_see(forecasts: Forecasts, panel: Panel) -> None:
    spread = forecasts.distribution
    for mean in (np.nan, -1.0, np.inf):
        wrong = replace(spread, mean_NM=np.full_like(spread.mean_NM, mean))
        found = of(totals(replace(forecasts, distribution=wrong), panel), level="platform")
        assert (found["mean"].to_numpy() < 0).all() or not np.isfinite(found["mean"].to_numpy()).any()


def width(table: pa.Table) -> float:
    return float(of(table, level="platform", task="clicks")["p95"][0].as_py()) - float(
        of(table, level="platform", task="clicks")["p05"][0].as_py()
    )


def test_what_is_shared_widens_totals_up_to_sums_of_quantiles(forecasts: Forecasts, panel: Panel) -> None:
    def shared(market: float, advertiser: float = 0.0) -> Dependence:
        return Dependence((Shared(market, 0.0, {}, advertiser, 10**6),) * 3)

    clicks = [task.name for task in panel.spec.tasks].index("clicks")
    spread = forecasts.distribution
    level_GN = spread.level_GNM[:, :, clicks]
    # The mean that the levels say, so that no factor moves the samples.
    wide = replace(forecasts, distribution=replace(spread, mean_NM=np.zeros_like(spread.mean_NM)))
    widths = [width(totals(wide, panel, shared(share))) for share in (0.0, 0.1, 0.5, 1.0)]
    assert widths == sorted(widths)
    assert widths[0] < 0.5 * widths[-1]
    together = (level_GN[PUBLISHED[-1]] - level_GN[PUBLISHED[0]]).sum()
    assert widths[-1] == pytest.approx(together, rel=0.05)

    def several(dependence: Dependence) -> float:
        rows = of(totals(wide, panel, dependence), level="advertiser", task="clicks").filter(pc.field("series") > 1)
        return float(pc.sum(pc.subtract(rows["p95"], rows["p05"])).as_py())

    assert several(shared(0.0)) < several(shared(0.0, 0.5)) < several(shared(0.0, 0.99))


@pytest.mark.parametrize(
    ("market", "scenario", "advertiser"), [(0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.1, 0.2, 0.0), (0.1, 0.1, 0.3)]
)
@pytest.mark.parametrize("zeros", [0.0, 0.6])
def test_what_was_shared_is_found(market: float, scenario: float, advertiser: float, zeros: float) -> None:
    """Whatever share of the totals is zero: lognormal above, over many cutoffs."""
    random = np.random.default_rng(5)
    cutoffs, people, places = 150, 60, 4
    cutoff_N, person_N, place_N = (x.ravel() for x in np.indices((cutoffs, people, places)))
    own = 1 - market - scenario - advertiser
    score_N = np.sqrt(market) * random.normal(size=cutoffs)[cutoff_N]
    score_N += np.sqrt(scenario) * random.normal(size=(cutoffs, places))[cutoff_N, place_N]
    score_N += np.sqrt(advertiser) * random.normal(size=(cutoffs, people))[cutoff_N, person_N]
    score_N += np.sqrt(own) * random.normal(size=len(cutoff_N))
    normal = Sampler(Dependence(())).even_S
    score_G = np.interp(LEVELS, (np.arange(SAMPLES) + 0.5) / SAMPLES, normal)
    level_G = np.where(zeros >= LEVELS, 0.0, np.exp(score_G))
    cut = np.interp(zeros, (np.arange(SAMPLES) + 0.5) / SAMPLES, normal) if zeros else -np.inf
    actual_N1 = np.where(score_N <= cut, 0.0, np.exp(score_N))[:, None]
    shape = (len(score_N), 1)
    forecast = Distribution(
        np.ones(shape), np.ones(shape), np.full(shape, zeros), np.broadcast_to(level_G[:, None, None], (43, *shape))
    )
    names = np.array([f"s{k}" for k in range(places)], object)
    (found,) = fit_dependence(forecast, actual_N1, person_N, names[place_N], cutoff_N).targets
    assert found.market == pytest.approx(market, abs=0.06)
    assert found.scenario == pytest.approx(scenario, abs=0.06)
    assert found.advertiser == pytest.approx(advertiser, abs=0.07)
    assert set(found.scenarios) == set(names)


def test_a_dependence_survives_json_and_few_rows() -> None:
    assert Dependence.from_dict(USUAL.to_dict()) == USUAL
    none = np.zeros((0, 3))
    found = fit_dependence(Distribution.point(none), none, np.zeros(0, int), np.zeros(0, object), np.zeros(0, int))
    assert len(found.targets) == 3
    assert all(0 < task.market < 0.1 and task.cutoffs == 0 for task in found.targets)
    one = np.ones((1, 3))
    names = np.array(["a"], object)
    found = fit_dependence(Distribution.point(one), one, np.zeros(1, int), names, np.zeros(1, int))
    assert all(task.cutoffs == 1 for task in found.targets)
    two = np.ones((2, 3))
    names = np.array(["a", "a"], object)
    found = fit_dependence(Distribution.point(two), two, np.zeros(2, int), names, np.arange(2))
    for task in found.targets:
        assert task.market + task.scenario + task.advertiser <= 1
