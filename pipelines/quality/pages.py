"""Data Docs: what Great Expectations found, as pages for people. Great Expectations is imported when it is used."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipelines.cli import warn
from pipelines.locks import locked

KEY = ["ds", "scenario_id"]  # of the counters that are judged
EXAMPLES = 20  # failing rows of a rule that a page shows
_MOST_PAGES = 100  # the index reads every result that it lists
_WAIT_S = 30.0
_VIEWS = {"module_name": "pipelines.quality.templates"}

Page = tuple[str, Any]  # a table's name, and Great Expectations' own result on it


def in_memory(**settings: Any) -> Any:
    """Great Expectations' context without a project folder; ``settings`` of its stores and sites."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    defaults = {"store_backend_defaults": InMemoryStoreBackendDefaults()}
    quiet = {"analytics_enabled": False, "progress_bars": {"globally": False}}
    return gx.get_context(mode="ephemeral", project_config=DataContextConfig(**defaults | quiet | settings))


def publish(docs_dir: Path, pages: Sequence[Page], run_id: str) -> None:
    """Add a run's pages to the Data Docs in ``docs_dir``; where that fails, say so and go on."""
    try:
        if pages:
            build_docs(docs_dir, pages, run_id)
    except Exception as error:  # noqa: BLE001 - whatever breaks in a report for people must not stop the data
        reason = f"{type(error).__name__}: {error}"
        tables = ", ".join(table for table, _ in pages)
        warn(f"{tables}: Data Docs in {docs_dir} were not built: {reason}")


def build_docs(docs_dir: Path, pages: Sequence[Page], run_id: str) -> Path:
    """Add the pages of a run to the HTML site in ``docs_dir``; returns its index.

    Only these pages and the index are rendered, once, and the oldest pages go: the cost of a run does not grow with the
    runs before it. One process builds at a time; a killed one leaves no lock behind.

    Raises:
        BusyError: another process has been building for ``_WAIT_S``.
    """
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import InMemoryStoreBackendDefaults
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    root = docs_dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    literal = str(root).replace("$", r"\$")  # $HOME in it is a name, and no variable
    stores = InMemoryStoreBackendDefaults()
    stores.stores[stores.validation_results_store_name]["store_backend"] = {
        "class_name": "TupleFilesystemStoreBackend",
        "base_directory": f"{literal}/results",
        "filepath_suffix": ".json",
    }
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": literal},
        "site_index_builder": {
            "class_name": "DefaultSiteIndexBuilder",
            "show_cta_footer": False,
            "view": _VIEWS | {"class_name": "IndexView"},
        },
        # A page of results shows its rules; suites live in memory, so that two runs cannot overwrite each other's.
        "site_section_builders": {
            "expectations": "none",
            "profiling": "none",
            "validations": {"view": _VIEWS | {"class_name": "ResultsView"}},
        },
    }
    busy = f"another process has been building them for {_WAIT_S:.0f} s"
    with locked(root / ".lock", busy, _WAIT_S):
        context = in_memory(store_backend_defaults=stores, data_docs_sites={"data_docs": site})
        run = RunIdentifier(run_name=run_id, run_time=datetime.now(UTC))
        store, new = context.validation_results_store, []
        for table, validation in pages:
            suite = ExpectationSuiteIdentifier(name=table)
            page = ValidationResultIdentifier(
                batch_identifier=validation.batch_id, expectation_suite_identifier=suite, run_id=run
            )
            validation.meta["run_id"] = run
            store.store_validation_results(validation, page, suite)
            new.append(page)
        for old in sorted(store.list_keys(), key=lambda key: key.run_id.run_time)[:-_MOST_PAGES]:
            store.remove_key(old)  # building the index removes the pages that have no result any more
        context.build_data_docs(resource_identifiers=new)
    return root / "index.html"


def shorten(result: dict[str, Any], counter: str, named: Sequence[tuple[date | None, str | None, float]]) -> None:
    """Keep for the page what a person reads: the first failing days and scenarios in place of row positions.

    Great Expectations writes values into its pages as they are, so that an id could bring a script along.
    """
    for key in ("unexpected_list", "unexpected_index_query", "partial_unexpected_index_list"):
        result.pop(key, None)
    if named:
        result["unexpected_index_column_names"] = KEY
        result["unexpected_index_list"] = [
            {counter: found, "ds": str(ds), "scenario_id": html.escape(str(scenario))} for ds, scenario, found in named
        ]
