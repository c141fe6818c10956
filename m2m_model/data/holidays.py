"""Public holidays of countries, from the package `holidays`: known of any day, on any day."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from m2m_model.arrays import Floats, Ints
from m2m_model.data.grid import NOTHING, to_grid
from m2m_model.data.spec import Plan


def holidays_ahead(plan: Plan, keys: pa.Table, first_day: date, days: int) -> Ints:
    """Points of the grid (N, T): the public holidays among the next ``plan.days`` days of each day from ``first_day``
    on, for the series of ``keys``; ``NOTHING`` where the country is not known.

    Raises:
        ValueError: ``country`` is none that the package knows.
    """
    covariate = plan.covariate
    if not covariate.country_attribute:
        return to_grid(_ahead(covariate.country, first_day, days, plan.days))[None]
    countries = pc.dictionary_encode(keys[covariate.country_attribute], "encode").combine_chunks()
    nothing_T = np.full(days, NOTHING, np.int16)
    point_CT: list[Ints] = [nothing_T]
    for country in countries.dictionary.to_pylist():
        try:
            point_CT.append(to_grid(_ahead(country or "", first_day, days, plan.days)))
        except ValueError:  # an attribute may be anything
            point_CT.append(nothing_T)
    code_N = np.asarray(pc.fill_null(countries.indices, -1), np.int64)
    return np.stack(point_CT)[1 + code_N]


@lru_cache(maxsize=1000)
def _ahead(country: str, first_day: date, days: int, horizon: int) -> Floats:
    last = first_day + timedelta(days=days + horizon)
    closed = holidays_of(country, first_day.year, last.year)
    is_holiday = [first_day + timedelta(days=n) in closed for n in range(days + horizon)]
    running = np.cumsum([0, *is_holiday])
    return np.asarray(running[1 + horizon :] - running[1:-horizon], np.float64)


@lru_cache(maxsize=1000)
def holidays_of(country: str, first_year: int, last_year: int) -> frozenset[date]:
    """
    Raises:
        ValueError: there is no such country, or no such part of it.
    """
    import holidays  # half a second, of data sets with holidays alone

    code, _, part = country.partition("-")
    try:
        return frozenset(holidays.country_holidays(code, part or None, range(first_year, last_year + 1)))
    except NotImplementedError as error:
        raise ValueError(f'country "{country}": the package holidays has none of it: {error}') from None
