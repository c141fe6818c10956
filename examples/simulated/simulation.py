"""Made-up advertisers: what they do each day, and what comes of it. README.md writes the process down.

numpy alone, no Spark, no file: the same (settings, block) gives the same rows wherever and beside whatever it runs.

Shapes: N advertisers of a block, S scenarios, R rows of a day, A running cells (advertiser x scenario) of a day.
Advertisers, scenarios and days are numbers here; an advertiser's number counts through all blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = dict[str, Array]  # columns of equal length

BLOCK = 10_000  # advertisers drawn together; another number makes other data

AHEAD = 10  # days that a planned budget is known before its own

NEVER = 1 << 30
TIERS = ("small", "medium", "large")
INDUSTRIES = ("apps", "education", "fashion", "finance", "food", "games", "retail", "travel")
TIER_SHARE = np.array([0.70, 0.24, 0.06])
TIER_LOG_SIZE = np.log([12.0, 60.0, 400.0])  # median impressions a day, before the tail
TIER_LOGINS = np.array([0.15, 0.35, 0.70])  # a day
INDUSTRY_PRICE = np.array([0.6, 0.9, 0.7, 2.0, 0.5, 0.8, 0.6, 1.2])

PERFORMANCE = ("impressions", "clicks", "spend", "conversions")
BEHAVIORS = ("campaign_created", "budget_raised", "budget_cut", "bid_changed", "top_up", "login")


@dataclass(frozen=True)
class Scenario:
    """One place where ads are shown.

    ``budget_raised``, ``budget_cut`` and ``bid_changed`` are the response: what one such act adds, in the days after
    it, to the log of impressions; ``momentum`` is the share of the last 7 days' change that goes on for another 7.
    ``share`` is how many advertisers use it, ``weekend`` the factor of Saturday and Sunday, ``opens`` the part of
    the simulated days that is over when it opens.
    """

    name: str
    placement: str
    format: str
    share: float
    budget_raised: float
    budget_cut: float
    bid_changed: float
    momentum: float
    weekend: float
    click_rate: float
    click_price: float
    opens: float = 0.0

    @property
    def response(self) -> tuple[float, ...]:
        return self.budget_raised, self.budget_cut, self.bid_changed, self.momentum


# video opens in the middle of the simulated days, and responds as feed does: by construction, the only two alike.
SCENARIOS = (
    Scenario("search", "results", "text", 0.60, 0.40, -0.40, 0.30, 0.0, 0.7, 0.030, 0.60),
    Scenario("display", "partner_sites", "banner", 0.35, 0.10, -0.10, -0.30, 0.6, 0.9, 0.015, 0.50),
    Scenario("feed", "app", "image", 0.50, 0.90, -0.40, 0.0, -0.5, 1.3, 0.025, 0.50),
    Scenario("video", "app", "clip", 0.50, 0.90, -0.40, 0.0, -0.5, 1.3, 0.020, 0.50, opens=0.5),
)


@dataclass(frozen=True)
class Simulation:
    """Everything that the data depend on.

    ``identical_scenarios``: every scenario runs the first one's process, and only names and attributes differ. The
    rates are shares of the performance rows: ``dirt_rate`` is made wrong, ``late_rate`` arrives 1 to 3 days late,
    ``restated_rate`` arrives with too low figures and is corrected 1 to 3 days later. ``planned_share`` of the
    advertisers plan budgets, and the log of impressions follows that of a budget by ``plan_effect``.
    """

    advertisers: int = 20_000
    days: int = 90
    seed: int = 1
    first_day: date = date(2024, 1, 1)
    scenarios: tuple[Scenario, ...] = SCENARIOS
    identical_scenarios: bool = False
    dirt_rate: float = 0.0
    late_rate: float = 0.0
    restated_rate: float = 0.0
    planned_share: float = 0.0
    plan_effect: float = 0.8

    @property
    def blocks(self) -> int:
        return -(-self.advertisers // BLOCK)

    @property
    def process(self) -> tuple[Scenario, ...]:
        """The scenarios as they behave."""
        if not self.identical_scenarios:
            return self.scenarios
        first = self.scenarios[0]
        return tuple(replace(first, name=s.name, placement=s.placement, format=s.format) for s in self.scenarios)


@dataclass(frozen=True)
class Block:
    """What happened to the advertisers of one block.

    ``profiles`` has a row per advertiser: advertiser, registered (day; below 0: before the first), industry and tier
    (codes), churned (the day after which nothing happens, or NEVER: the truth, not part of the data). ``performance``
    and ``behavior`` have the rows of each day, ``plans`` what was known at its end; scenario -1 is all scenarios.
    """

    profiles: Rows
    performance: list[Rows]
    behavior: list[Rows]
    plans: list[Rows]


@dataclass(frozen=True)
class World:
    """All blocks; ``performance``, ``behavior`` and ``plans`` have the rows of all days, with their ``day``."""

    profiles: Rows
    performance: Rows
    behavior: Rows
    plans: Rows


def simulate(settings: Simulation) -> World:
    """All blocks, in this process: for tests and studies of some ten thousand advertisers."""
    blocks = [simulate_block(settings, number) for number in range(settings.blocks)]

    def with_day(days: list[Rows]) -> list[Rows]:
        return [{"day": np.full(len(r["advertiser"]), day, np.int32), **r} for day, r in enumerate(days)]

    return World(
        joined([block.profiles for block in blocks]),
        joined([rows for block in blocks for rows in with_day(block.performance)]),
        joined([rows for block in blocks for rows in with_day(block.behavior)]),
        joined([rows for block in blocks for rows in with_day(block.plans)]),
    )


def simulate_block(settings: Simulation, number: int, other: tuple[int, int] | None = None) -> Block:
    """Simulate block ``number`` (0 .. blocks - 1) day by day, all its advertisers at once.

    Everything random comes from (seed, number). What is done on a day works from the next day on. ``other`` = (day, k):
    the k-th of the other ways that it could have gone on from that day, after the same past.
    """
    random = np.random.default_rng([settings.seed, number])
    first = number * BLOCK
    # A last block that is not full draws as a full one: an advertiser stays the same when others are added.
    n, shown = BLOCK, min(BLOCK, settings.advertisers - first)
    scenarios, days = settings.process, settings.days
    count = len(scenarios)
    opens_S = np.array([round(s.opens * days) for s in scenarios])
    response_SB = np.array([s.response[:3] for s in scenarios])
    momentum_S = np.array([s.momentum for s in scenarios])
    share_S = np.array([s.share for s in scenarios])

    # Who they are.
    tier_N = np.searchsorted(np.cumsum(TIER_SHARE)[:-1], random.random(n))
    industry_N = random.integers(0, len(INDUSTRIES), n)
    age_N = np.ceil(random.exponential(300, n)).astype(np.int64)
    registered_N = np.where(random.random(n) < 0.25, random.integers(0, days, n), -age_N)
    # A lognormal body with a Pareto tail of index 1.5.
    log_size_N = TIER_LOG_SIZE[tier_N] + random.normal(0, 0.7, n) + random.exponential(1 / 1.5, n)
    logins_N = TIER_LOGINS[tier_N] * np.exp(random.normal(0, 0.4, n))
    level_NS = log_size_N[:, None] + random.normal(0, 0.6, (n, count))
    click_rate_NS = np.array([s.click_rate for s in scenarios]) * np.exp(random.normal(0, 0.3, (n, count)))
    price_N = INDUSTRY_PRICE[industry_N] * np.exp(random.normal(0, 0.2, n))
    price_NS = np.array([s.click_price for s in scenarios]) * price_N[:, None]
    buys_N = np.minimum(0.05 * np.exp(random.normal(0, 0.5, n)), 1.0)
    suits_NS = random.random((n, count)) < share_S  # whether it will ever want this scenario

    # Where they stand. The log of a campaign's daily impressions is level + state.
    created_NS = np.where(suits_NS & (registered_N < 0)[:, None] & (opens_S == 0), -1, NEVER)
    state_NS = np.where(created_NS < 0, random.normal(0, 0.3, (n, count)), -1.0)
    pending_NS = np.zeros((n, count))
    past = [state_NS.copy() for _ in range(7)]  # the states of the last 7 days, oldest first
    usual_N = np.exp(level_NS) * click_rate_NS * price_NS * suits_NS
    usual_N = np.maximum(usual_N.sum(1), 0.05)  # spend of a usual day
    balance_N = usual_N * random.uniform(0, 30, n)
    fading_N = np.zeros(n, np.int64)  # days since the interest began to fade; 0: it has not
    back_N = np.full(n, -1)  # day of return while churned; -1: not churned
    churned_N = np.full(n, NEVER)
    logged_in_N = np.zeros(n, bool)
    performance, behavior, plans = [], [], []
    # Drawn apart: without plans everything else is what it always was.
    budgets = Budgets.drawn(settings, number, level_NS + np.log(click_rate_NS * price_NS))

    for day in range(days):
        if other and day == other[0]:
            random = np.random.default_rng([settings.seed, number, *other])
        weekday = (settings.first_day.toordinal() + day - 1) % 7  # Monday = 0
        week_S = np.array([s.weekend if weekday >= 5 else 1.0 for s in scenarios])
        born_N = registered_N == day
        returns_N = back_N == day
        back_N[returns_N], fading_N[returns_N] = -1, 0
        here_N = (registered_N <= day) & (back_N == -1)

        # What comes of it: a campaign runs while its advertiser is here and has money.
        cell_A = np.flatnonzero((created_NS < day) & (here_N & (balance_N > 0))[:, None])
        advertiser_A, scenario_A = np.divmod(cell_A, count)
        log_A = level_NS.ravel()[cell_A] + state_NS.ravel()[cell_A] + random.normal(0, 0.3, len(cell_A))
        if settings.planned_share:
            log_A += settings.plan_effect * budgets.change(cell_A, day, known=day - 1)
        shown_A = random.poisson(np.minimum(np.exp(log_A) * week_S[scenario_A], 1e7))
        clicks_A = random.binomial(shown_A, np.minimum(click_rate_NS.ravel()[cell_A], 0.5))
        bought_A = random.binomial(clicks_A, buys_N[advertiser_A])
        spend_A = np.round(clicks_A * price_NS.ravel()[cell_A] * np.exp(random.normal(0, 0.1, len(cell_A))), 2)
        seen_A = (shown_A > 0) & (advertiser_A < shown)
        performance.append(
            {
                "advertiser": (first + advertiser_A[seen_A]).astype(np.int32),
                "scenario": scenario_A[seen_A].astype(np.int8),
                "impressions": shown_A[seen_A],
                "clicks": clicks_A[seen_A],
                "spend": spend_A[seen_A],
                "conversions": bought_A[seen_A],
            }
        )
        spent_N = np.bincount(advertiser_A, spend_A, n)
        balance_N -= spent_N
        usual_N += np.where(spent_N > 0, 0.1 * (spent_N - usual_N), 0.0)

        # What they do. Who logged in yesterday and is not losing interest may change something today.
        rate_N = logins_N * (0.5 if weekday >= 5 else 1.0) * 0.85**fading_N
        login_N = np.where(here_N, random.poisson(rate_N), 0)
        able_a = np.flatnonzero(here_N & logged_in_N & (fading_N == 0))
        chance_aS = random.random((len(able_a), count))
        exists_aS = created_NS[able_a] < day
        raised_aS = exists_aS & (chance_aS < 0.06)
        cut_aS = exists_aS & (chance_aS >= 0.06) & (chance_aS < 0.12)
        bid_aS = exists_aS & (chance_aS >= 0.12) & (chance_aS < 0.20)
        new_NS = np.zeros((n, count), bool)
        new_NS[able_a] = chance_aS < 0.15
        new_NS |= (born_N | returns_N)[:, None]
        new_NS &= suits_NS & (created_NS == NEVER) & (opens_S <= day)
        created_NS[new_NS] = day
        acts_NSB = np.zeros((n, count, 3))
        acts_NSB[able_a] = np.stack([raised_aS, cut_aS, bid_aS], 2)
        # A balance for less than three days may be filled; an empty one stops everything until it is.
        low_N = here_N & (balance_N < 3 * usual_N)
        topped_N = low_N & (random.random(n) < np.where(balance_N > 0, 0.30, 0.20) * 0.6**fading_N)
        topped_N |= born_N | returns_N
        balance_N = np.where(topped_N, np.maximum(balance_N, 0) + usual_N * 7 * random.uniform(1, 6, n), balance_N)
        acted_N = topped_N | new_NS.any(1) | acts_NSB.any((1, 2))
        login_N = np.maximum(login_N, acted_N)
        behavior.append(_behavior(first, shown, login_N, topped_N, new_NS, acts_NSB))
        runs_NS = (created_NS <= day) & here_N[:, None] & budgets.planning_N[:, None]
        plans.append(budgets.known(first, np.flatnonzero(runs_NS[:shown]), day))
        logged_in_N = login_N > 0

        # What becomes of it tomorrow.
        pending_NS += np.einsum("nsb,sb->ns", acts_NSB, response_SB)
        arriving_NS = pending_NS / 3
        pending_NS -= arriving_NS
        rise_NS = (state_NS - past.pop(0)) / 7
        past.append(state_NS)
        shock_NS = random.normal(0, 0.04, (n, count)) - 0.03 * (fading_N > 0)[:, None]
        moved_NS = 0.98 * state_NS + arriving_NS + momentum_S * rise_NS + shock_NS
        # A campaign that does not exist yet waits at the start of its ramp.
        state_NS = np.where(created_NS <= day, np.clip(moved_NS, -3, 3), state_NS)
        ends_N = here_N & (fading_N > 0) & (random.random(n) < 1 / 14)
        pause_N = np.where(random.random(n) < 0.2, np.ceil(random.exponential(21, n)) + 7, NEVER)
        back_N = np.where(ends_N, np.minimum(day + pause_N, NEVER).astype(np.int64), back_N)
        starts_N = random.random(n) < np.array([0.006, 0.004, 0.002])[tier_N]
        fading_N = np.where(here_N & (fading_N > 0) & ~ends_N, fading_N + 1, fading_N)
        fading_N = np.where(here_N & (fading_N == 0) & starts_N, 1, fading_N)
        churned_N = np.where(ends_N & (back_N == NEVER), day, churned_N)

    profiles = {
        "advertiser": np.arange(first, first + n, dtype=np.int32),
        "registered": registered_N,
        "industry": industry_N,
        "tier": tier_N,
        "churned": churned_N,
    }
    return Block({name: column[:shown] for name, column in profiles.items()}, performance, behavior, plans)


@dataclass(frozen=True)
class Budgets:
    """The planned budgets of a block, week by week of each advertiser's own calendar (W weeks): the log of each over
    the usual one, as announced and as it is in the end, and from which of its days (below 0: before it) that is known.
    """

    planning_N: Array
    phase_N: Array  # the day of the week that an advertiser's weeks begin on
    first_NSW: Array
    final_NSW: Array
    settled_NSW: Array
    usual_NS: Array  # log of a day's usual spend

    @classmethod
    def drawn(cls, settings: Simulation, number: int, usual_NS: Array) -> Budgets:
        random = np.random.default_rng([settings.seed, number, 0, 1])
        planning_N = random.random(len(usual_NS)) < settings.planned_share
        phase_N = random.integers(0, 7, len(usual_NS))
        shape = (*usual_NS.shape, (settings.days + AHEAD) // 7 + 2 if settings.planned_share else 0)

        def changes_NSW() -> Array:
            return np.where(random.random(shape) < 0.3, random.normal(0, 0.7, shape), 0.0)

        final_NSW, other_NSW, is_late_NSW = changes_NSW(), changes_NSW(), random.random(shape) < 0.2
        settled_NSW = np.where(is_late_NSW, random.integers(-3, 3, shape), -NEVER)
        return cls(planning_N, phase_N, np.where(is_late_NSW, other_NSW, final_NSW), final_NSW, settled_NSW, usual_NS)

    def change(self, cell_A: Array, day: int, known: int) -> Array:
        """The log of a day's budget over the usual one, as known at the end of the day ``known``, for some cells
        (advertiser x scenario); 0 where nobody plans."""
        advertiser_A = cell_A // self.usual_NS.shape[1]
        week_A, day_of_week_A = np.divmod(day + self.phase_N[advertiser_A], 7)
        first_A, final_A, settled_A = (
            of_NSW.reshape(self.usual_NS.size, -1)[cell_A, week_A]
            for of_NSW in (self.first_NSW, self.final_NSW, self.settled_NSW)
        )
        is_final_A = day_of_week_A - (day - known) >= settled_A
        changed_A: Array = np.where(is_final_A, final_A, first_A) * self.planning_N[advertiser_A]
        return changed_A

    def known(self, first: int, cell_A: Array, day: int) -> Rows:
        """The rows of what is planned for the next days, as known at the end of a day."""
        ahead_D = np.arange(1, AHEAD + 1) if len(cell_A) else np.zeros(0, int)
        usual_A, (advertiser_A, scenario_A) = self.usual_NS.ravel()[cell_A], np.divmod(cell_A, self.usual_NS.shape[1])
        log_DA = [usual_A + self.change(cell_A, day + int(ahead), day) for ahead in ahead_D]
        return {
            "advertiser": np.tile(first + advertiser_A, len(ahead_D)).astype(np.int32),
            "scenario": np.tile(scenario_A, len(ahead_D)).astype(np.int8),
            "for_day": np.repeat(day + ahead_D, len(cell_A)).astype(np.int32),
            "planned_budget": np.round(np.exp(np.concatenate([np.zeros(0), *log_DA])), 2),
        }


def _behavior(first: int, shown: int, login_N: Array, topped_N: Array, new_NS: Array, acts_NSB: Array) -> Rows:
    """The behavior rows of a day: what concerns one scenario, then log-ins and top-ups, which concern all (-1)."""
    campaign_NSB = np.concatenate([new_NS[..., None], acts_NSB], 2)[:shown]
    advertiser_r, scenario_r = np.nonzero(campaign_NSB.any(2))
    everywhere_r = np.flatnonzero((login_N > 0)[:shown])
    none_r, none_everywhere_r = np.zeros(len(advertiser_r)), np.zeros(len(everywhere_r))
    columns = [*(np.concatenate([c, none_everywhere_r]) for c in campaign_NSB[advertiser_r, scenario_r].T)]
    columns += [np.concatenate([none_r, column[everywhere_r]]) for column in (topped_N, login_N)]
    return {
        "advertiser": (first + np.concatenate([advertiser_r, everywhere_r])).astype(np.int32),
        "scenario": np.concatenate([scenario_r, np.full(len(everywhere_r), -1)]).astype(np.int8),
        **{name: column.astype(np.int32) for name, column in zip(BEHAVIORS, columns, strict=True)},
    }


def delivered(settings: Simulation, block: int, day: int, rows: Rows) -> Rows:
    """The performance rows of a day as they arrive: ``delay_days`` after it, some late, restated or wrong.

    A row that is restated is there twice: with too low figures at 0 days, and corrected. Of the dirty rows of the first
    delivery a quarter each is repeated, has no advertiser (-1), has more clicks than impressions or a negative spend;
    the last two need a click or spend to be made from, and stay clean without. Advertisers' days are drawn from
    (seed, block), this from (seed, block, day): dirt does not change what happened.
    """
    random = np.random.default_rng([settings.seed, block, 1 + day])
    size = len(rows["advertiser"])
    chance = random.random(size)
    late = chance < settings.late_rate
    restated = ~late & (chance < settings.late_rate + settings.restated_rate)
    delay = random.integers(1, 4, size)
    second = picked({**rows, "delay_days": delay}, late | restated)
    told = random.binomial(rows["clicks"], 0.8)
    low = {
        "clicks": np.where(restated, told, rows["clicks"]),
        "spend": np.where(restated, np.round(0.8 * rows["spend"], 2), rows["spend"]),
        "conversions": np.where(restated, np.minimum(rows["conversions"], told), rows["conversions"]),
    }
    arrived = picked({**rows, **low, "delay_days": np.zeros(size, np.int64)}, ~late)
    kind = np.where(random.random(size) < settings.dirt_rate, random.integers(0, 4, size), -1)[~late]
    clicks, spend = arrived["clicks"], arrived["spend"]
    arrived["advertiser"] = np.where(kind == 1, -1, arrived["advertiser"])
    arrived["impressions"] = np.where((kind == 2) & (clicks > 0), clicks // 2, arrived["impressions"])
    arrived["spend"] = np.where((kind == 3) & (spend > 0), -spend, spend)
    return joined([arrived, picked(arrived, kind == 0), second])


def picked(rows: Rows, which: Array) -> Rows:
    return {name: column[which] for name, column in rows.items()}


def joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
