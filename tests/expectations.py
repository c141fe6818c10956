"""What a newcomer expects in the first hour, and the tests that show it; ``make test`` ends with this list, ticked.

python tests/expectations.py        after both parts of the tests; exit status 1 if one does not stand
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".pytest_cache" / "d" / "expectations"


@dataclass(frozen=True)
class Expectation:
    """``tests``: FILE::NAME below tests/, which must all have passed; without any, ``by_hand`` says where it shows."""

    words: str
    tests: tuple[str, ...] = ()
    by_hand: str = ""


EXPECTATIONS = (
    Expectation("one command runs the main job on a laptop in 10 minutes or less", by_hand="make demo; README.md"),
    Expectation(
        "--help of every stage says what is read, written and when it fails; DAG tasks call the same commands",
        (
            "test_docs.py::test_help_says_what_is_read_and_written_and_when_it_fails",
            "dags/test_structure.py::test_every_task_runs_the_command_of_its_stage",
        ),
    ),
    Expectation(
        "one typed configuration, every key documented with its range, unknown keys refused",
        (
            "pipelines/test_config.py::test_every_key_is_documented_with_its_range",
            "bad_input/test_configuration.py::test_a_configuration_that_cannot_work_is_named",
        ),
    ),
    Expectation(
        "the date is explicit, never a guess",
        (
            "dags/test_structure.py::test_date_is_the_parameter_or_the_partition_key_and_never_a_guess",
            "dags/test_failures.py::test_run_without_a_date_is_refused",
        ),
    ),
    Expectation(
        "a rerun gives identical data",
        (
            "pipelines/test_build_sequences.py::test_the_same_date_twice_gives_the_same_rows_and_one_more_snapshot",
            "pipelines/test_chain.py::test_3_the_same_seed_gives_the_same_weights",
            "pipelines/test_chain.py::test_6_the_champion_serves_and_twice_gives_the_same_rows",
        ),
    ),
    Expectation(
        "backfill fills holes, and status names them, folded to ranges",
        (
            "dags/test_backfill.py::test_missed_days_are_filled_in_order",
            "pipelines/test_status.py::test_missing_days_are_named_and_mended_in_order",
            "pipelines/test_status.py::test_days_fold_to_ranges",
        ),
    ),
    Expectation(
        "bad data stops with check, column, scenario and count, and publishes nothing",
        (
            "pipelines/test_bad_input.py::test_bad_rows_stop_the_run_and_publish_nothing",
            "pipelines/quality/test_judge.py::test_a_failure_is_told_in_one_line",
        ),
    ),
    Expectation("few Spark passes", ("pipelines/test_chain.py::test_6_a_day_takes_few_spark_jobs",)),
    Expectation(
        "a training killed in the middle of an epoch resumes to the same weights",
        ("pipelines/test_crashes.py::test_a_training_killed_between_checkpoints_goes_on_to_the_same_weights",),
    ),
    Expectation(
        "a lost rank fails promptly, by name",
        (
            "pipelines/spark/test_ranks.py::test_a_killed_rank_is_named_with_its_signal_and_not_its_neighbor",
            "cluster/test_cluster.py::test_what_is_killed_on_the_way_changes_no_figure",
        ),
    ),
    Expectation(
        "one and many processes agree",
        ("m2m_model/training/test_ranks.py::test_two_ranks_divide_every_batch_and_equal_one",),
    ),
    Expectation(
        "MLflow shows parameters, metrics while it trains, the snapshot as a dataset, signature, plots, model card",
        (
            "pipelines/test_chain.py::test_2_training_registers_a_challenger_with_its_whole_story",
            "pipelines/test_chain.py::test_7_mlflows_own_loader_gives_the_published_forecasts",
        ),
    ),
    Expectation(
        "the gate is on by default, with a dry run and a roll back",
        (
            "pipelines/test_chain.py::test_5_a_dry_run_only_records_and_a_promotion_moves_the_alias",
            "pipelines/test_chain.py::test_5_a_person_promotes_with_a_reason_that_the_ledger_keeps",
        ),
    ),
    Expectation(
        "the forecast table has a schema and keys, and is published whole or not at all",
        (
            "test_docs.py::test_the_data_dictionary_is_current",
            "pipelines/quality/test_forecasts.py::test_a_repeated_row_is_found",
            "pipelines/test_crashes.py::test_a_process_killed_between_write_and_commit_publishes_nothing",
        ),
    ),
    Expectation(
        "a backtest against baselines on the same series, and a table of what size costs",
        (
            "pipelines/test_chain.py::test_4_backtest_judges_every_forecaster_on_the_same_series",
            "test_deployment.py::test_sizes_and_costs_follow_from_what_was_measured",
        ),
    ),
)


def keep(part: str, outcomes: dict[str, bool]) -> None:
    """Remember which of the named tests passed in one part of the tests (a test with parameters: all of them)."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{part or 'all'}.json").write_text(json.dumps(outcomes), encoding="utf-8")


def main() -> int:
    outcomes: dict[str, bool] = {}
    for file in sorted(KEPT.glob("*.json")):
        for test, passed in json.loads(file.read_text(encoding="utf-8")).items():
            outcomes[test] = passed and outcomes.get(test, True)
    failed = 0
    for number, expected in enumerate(EXPECTATIONS, 1):
        missing = [test for test in expected.tests if not outcomes.get(test)]
        failed += bool(missing)
        mark = "by hand" if not expected.tests else "NO" if missing else "yes"
        print(f"{number:3} {mark:8} {expected.words}{f' ({expected.by_hand})' if expected.by_hand else ''}")
        for test in missing:
            print(f"             {'failed' if test in outcomes else 'was not run'}: tests/{test}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
