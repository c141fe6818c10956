"""The docs are true: links resolve, commands exist, the data dictionary is current, every stage explains itself."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.chain import STAGES
from pipelines.config import load_config
from pipelines.warehouse.tables import data_dictionary

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCS]


def _anchors(text: str) -> set[str]:
    """Anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), f"{name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make (?:-s )?([a-z-]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"-m pipelines\.([a-z_]+)", text)) <= set(STAGES)


def test_the_site_has_every_page_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|<link[^>]*href)="(?:https?:)?//[^"]*""", page)  # opens without the internet


def test_the_data_dictionary_is_current() -> None:
    made = data_dictionary(load_config(ROOT / "examples" / "online_ads" / "pipeline.toml"))
    assert (ROOT / "docs" / "data_dictionary.md").read_text(encoding="utf-8") == made, "run `make dictionary`"


def test_the_readme_quotes_the_results() -> None:
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    quoted = dict(re.findall(r"^\| (online_\w+) \| (.*) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    expected = {
        name: [
            len(found["cutoffs"]),
            *(
                f"{value:.3f}"
                for value in (
                    found["nmae_over_last_h_days"],
                    found["nmae_over_lightgbm_l1"],
                    found["nmae_over_best_baseline"]["mean"],
                    found["smape_over_best_baseline"],
                    max(found["nmae_over_simple_of_validation"].values()),
                )
            ),
        ]
        for name, found in results.items()
    }
    assert {name: row.split(" | ") for name, row in quoted.items()} == {
        name: list(map(str, row)) for name, row in expected.items()
    }


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_is_read_and_written_and_when_it_fails(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"pipelines.{stage}").main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in ("Reads", "rites", "Fails ("):
        assert word in said or word.lower() in said, f"{stage}: {word}"
