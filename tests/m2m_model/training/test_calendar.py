from datetime import date, timedelta

from m2m_model.config import ModelConfig, TrainConfig
from m2m_model.training.calendar import days_between, train_end, validation_cutoffs

MODEL = ModelConfig(width=16, experts=2)
TRAIN = TrainConfig(epochs=3, min_steps=18, max_windows=1500, batch_size=64, checkpoint_every_steps=4)


def test_validation_cutoffs_end_before_the_held_out_ones() -> None:
    day = date(2024, 5, 31)
    assert validation_cutoffs(date(2024, 1, 1), day, [7], 2) == (date(2024, 5, 24), date(2024, 5, 17))
    assert train_end(date(2024, 1, 1), day, [7], 2) == date(2024, 5, 17)


def test_of_several_horizons_the_longest_counts_and_all_weekdays_are_seen() -> None:
    first, day = date(2024, 1, 1), date(2024, 5, 31)
    assert validation_cutoffs(first, day, [7, 14], 4)[0] == date(2024, 5, 17)
    assert {found.weekday() for found in validation_cutoffs(first, day, [7, 14], 4)} == {date(2024, 5, 17).weekday()}
    assert len({found.weekday() for found in validation_cutoffs(first, day, [1, 14], 4)}) == 4
    # One horizon is looked at as it always was.
    assert {found.weekday() for found in validation_cutoffs(first, day, [1], 4)} == {date(2024, 5, 30).weekday()}


def test_every_day_from_the_first_to_the_last_cutoff() -> None:
    latest = date(2024, 5, 24)
    assert days_between((latest,)) == (latest,)
    days = days_between((latest, latest - timedelta(days=7)))
    assert (days[0], days[-1], len(days)) == (latest, latest - timedelta(days=7), 8)


def test_a_short_history_is_not_spent_on_validation() -> None:
    first = date(2024, 1, 1)
    counts = {d: len(validation_cutoffs(first, first + timedelta(days=d), [7], 4)) for d in (10, 30, 45, 70, 300)}
    assert counts == {10: 1, 30: 1, 45: 2, 70: 3, 300: 4}
