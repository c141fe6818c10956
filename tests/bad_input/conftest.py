"""``refuse`` tries a case of bad input; what was tried, named and published is counted and printed at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input.corpus import STARTS, Case, attempt
from deployment import Deployment

COUNTS = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture
def refuse(deployment: Deployment, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Case], str]:
    """A call that tries a case: the right exit status, one line that names it, no traceback, nothing published. Returns
    what was said."""

    def refuse(case: Case) -> str:
        outcome = attempt(case, deployment, tmp_path / "home")
        raw = "Traceback (most recent call last)" in outcome.said
        named = outcome.status == case.status and bool(outcome.line) and not raw
        counts = request.config.stash.setdefault(COUNTS, defaultdict(Counter))
        counts[request.path.stem] += Counter(tried=1, named=named, published=outcome.published)
        assert not raw, outcome.said
        assert outcome.status == case.status, outcome.said
        assert outcome.line, f"expected one line with {case.words}, found:\n{outcome.said}"
        assert STARTS[case.status] in outcome.said or (case.status == 2 and " error: " in outcome.said), outcome.said
        assert outcome.published == 0, outcome.said
        return outcome.said

    return refuse


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(COUNTS, {})
    if not counts:
        return
    terminalreporter.section("bad input")
    rows = {name.removeprefix("test_"): found for name, found in sorted(counts.items())}
    rows["all"] = sum(counts.values(), Counter())
    for name, found in rows.items():
        figures = ", ".join(f"{word} {found[word]:>3}" for word in ("tried", "named", "published"))
        terminalreporter.write_line(f"{name:16} {figures}")
