"""The GPU benchmark's page: rows as they are measured, the headline that they allow, Markdown and JSON."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_bed import Step, milliseconds

PRECISIONS = ("fp32", "tf32", "bf16")
GOALS = {"training": 1_000_000, "scoring": 3_000_000}
LIMIT = 0.002  # a headline's form lies this near to fp32: training in held-out loss, scoring in its medians
FAIR = 32_768  # plain PyTorch's attention trains at most 65,535 windows at once
OUTSIDE = (
    "NVIDIA's published 13.7k items/s of TFT training (hidden size 128, one A100): their figure, not measured here"
)


@dataclass
class Run:
    """What is measured, as it comes; the page is made anew after every part."""

    device: torch.device
    small: bool
    seconds: float
    page_path: Path | None
    json_path: Path | None
    only: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started

    def say(self, line: str) -> None:
        print(f"[{self.spent:6.1f} s] {line}", flush=True)

    def part(self, name: str, work: Callable[[], None], needs: float = 0.0) -> None:
        """Do a part when ``needs`` seconds are left for it; what fails is named and the rest goes on."""
        if self.only and not name.startswith(self.only):
            return
        if self.spent + needs > self.seconds:
            self.notes.append(f"{name}: skipped, {self.spent:.0f} s of {self.seconds:.0f} s were spent")
            self.say(self.notes[-1])
            return
        self.say(f"{name} ...")
        try:
            work()
        except Exception as error:  # noqa: BLE001 - one part of many on a machine that is there once
            traceback.print_exc(file=sys.stdout)
            self.notes.append(f"{name}: failed, {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            self.say(self.notes[-1])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.write()

    def measure(self, what: str, kind: str, batch: int, number: str, how: str, make: Callable[[], Step]) -> None:
        """One row: the median of a step's times, and the memory that it took beside the panel."""
        row: dict[str, Any] = {"what": what, "network": kind, "batch": batch, "precision": number, "how": how}
        self.rows = [other for other in self.rows if any(other[name] != value for name, value in row.items())]
        row["run"] = len(self.raw.get("runs", ())) or 1
        on_gpu = self.device.type == "cuda"
        try:
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            made = time.perf_counter()
            step = make()
            step()
            row["first_step_s"] = time.perf_counter() - made
            times = milliseconds(step, self.device, 0.6)
            row |= {"ms": statistics.median(times), "ms_min": min(times), "ms_max": max(times), "steps": len(times)}
            row["windows_per_s"] = batch / row["ms"] * 1e3
            if on_gpu:
                row["peak_gib"] = (torch.cuda.max_memory_allocated() - before) / 2**30
        except torch.OutOfMemoryError:
            row["failed"] = "out of memory"
        except Exception as error:  # noqa: BLE001 - a form that this machine cannot run is a finding
            traceback.print_exc(file=sys.stdout)
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        self.rows.append(row)
        said = row.get("failed") or f"{row['ms']:.2f} ms, {row['windows_per_s']:,.0f} windows/s"
        self.say(f"{what}, {kind}, B {batch:,}, {number}, {how}: {said}")

    def best(self, what: str, kind: str = "M2M", **fixed: object) -> dict[str, Any] | None:
        """The row of most windows a second among those with the ``fixed`` values."""
        found = [row for row in self.rows if row["what"] == what and row["network"] == kind and "ms" in row]
        found = [row for row in found if all(row[name] == value for name, value in fixed.items())]
        return max(found, key=lambda row: row["windows_per_s"], default=None)

    def headline(self, what: str, number: str | None = None) -> dict[str, Any] | None:
        """The best row of a form (and precision) that was found as good as fp32, eager: ``LIMIT``."""
        apart = {"fp32": 0.0}
        if what == "scoring":
            apart |= self.raw.get("median_apart", {})
        elif "fp32" in (losses := self.raw.get("losses", {})):
            apart |= {form: held / losses["fp32"][1] - 1 for form, (_, held, _) in losses.items()}
        rows = [row for row in self.rows if row["what"] == what and row["network"] == "M2M" and "ms" in row]
        rows = [row for row in rows if apart.get(form_of(row), 1) <= LIMIT and number in (None, row["precision"])]
        return max(rows, key=lambda row: row["windows_per_s"], default=None)

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {"device": self.raw.get("device", str(self.device))}
        for what, key in (("training", "train"), ("scoring", "score")):
            row = self.headline(what)
            found |= {f"{key}_windows_per_s": round(row["windows_per_s"]) if row else None, f"{key}_how": how_of(row)}
        return found

    def write(self) -> None:
        with self.lock:
            made = {"rows": self.rows, "notes": self.notes, "sections": self.sections}
            raw = {"summary": self.summary(), **self.raw, **made}
            for path, text in ((self.page_path, self.page()), (self.json_path, json.dumps(raw, indent=1) + "\n")):
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")

    def page(self) -> str:
        lines = ["# The network on a GPU", "", "Made by `make bench-gpu`.", ""]
        lines += [f"- Run {number}: {made}" for number, made in enumerate(self.raw.get("runs", ()), 1)]
        lines += [f"\n{remark}" for remark in self.raw.get("remarks", ())]
        lines += ["", self.raw.get("data", ""), "", "## Against the goals", ""]
        lines += ["| | windows/s | goal | of the goal | how |", "| --- | ---: | ---: | ---: | --- |"]
        for what, goal in GOALS.items():
            row = self.headline(what)
            if row:
                speed = row["windows_per_s"]
                lines.append(f"| {what} | {speed:,.0f} | {goal:,} | {speed / goal:.2f} | {how_of(row)} |")
        lines += [
            "",
            f"The best of the forms that stay within {LIMIT:.1%} of fp32, eager: training in held-out loss after",
        ]
        lines += [
            "the same steps, scoring in its medians from the same weights (both below). A form that was not judged"
        ]
        lines += ["so does not count; a CUDA graph is the form that it repeats."]
        for what in GOALS:
            best = [row for number in PRECISIONS if (row := self.headline(what, number))]
            said = "; ".join(f"{row['windows_per_s']:,.0f} ({how_of(row)})" for row in best)
            lines += ["", f"Best of each precision, {what}: {said}."]
        lines += ["", f"Outside reference: {OUTSIDE}.", "", self.raw.get("processes", ""), ""]
        lines += self.beside()
        for what in GOALS:
            lines += self.table_of(what)
        for section in self.sections.values():
            lines += [section, ""]
        lines += self.judged()
        if self.notes:
            lines += ["## Skipped or failed", "", *(f"- {note}" for note in self.notes), ""]
        return "\n".join(lines)

    def judged(self) -> list[str]:
        """How near to fp32 each form learns and forecasts."""
        lines = []
        if losses := self.raw.get("losses"):
            lines += [f"## Loss after {self.raw['losses_of']}, same data and seed", ""]
            lines += ["Held-out windows are judged in fp32, and in the precision itself; always eager.", ""]
            lines += ["| form | last tenth of training | held out | held out, own precision |"]
            lines += ["| --- | ---: | ---: | ---: |"]
            for form, figures in losses.items():
                lines.append(f"| {form} | " + " | ".join(f"{figure:.5f}" for figure in figures) + " |")
            lines += [""]
        if apart := self.raw.get("median_apart"):
            said = ", ".join(f"{form} {share:.3%}" for form, share in apart.items())
            lines += ["## Medians against those of fp32, eager, the same weights", ""]
            lines += [f"Sum of differences over their sum: {said}.", ""]
        return lines

    def beside(self) -> list[str]:
        """M2M over the bare backbone and plain PyTorch, at the same batch and precision."""
        lines = ["## Beside plain networks of the same size", ""]
        lines += [
            "The backbone is M2M's encoders and one linear head; plain PyTorch is nn.EmbeddingBag,",
            "nn.TransformerEncoderLayer and one linear head. All read the same windows, cut on the device. In training",
            "plain PyTorch runs without cuDNN's attention, whose gradients fail on these batches in bfloat16, and at",
            f"B {FAIR:,}, for the attention that is left takes at most 65,535.",
            "",
        ]
        lines += ["| | B | precision, how | M2M windows/s | backbone | M2M / backbone | plain PyTorch | M2M / plain |"]
        lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
        others = [row for row in self.rows if row["network"] != "M2M" and "ms" in row]
        names = ("what", "batch", "precision", "how")
        for what, batch, number, how in dict.fromkeys(tuple(row[name] for name in names) for row in others):
            same = {"batch": batch, "precision": number, "how": how}
            m2m = self.best(what, **same)
            if not m2m:
                continue
            cells = [what, f"{batch:,}", f"{number}, {how}", f"{m2m['windows_per_s']:,.0f}"]
            for kind in ("backbone", "plain PyTorch"):
                other = self.best(what, kind, **same)
                ratio = other and m2m["windows_per_s"] / other["windows_per_s"]
                cells += [f"{other['windows_per_s']:,.0f}", f"{ratio:.2f}"] if other else ["-", "-"]
            lines.append(f"| {' | '.join(cells)} |")
        return [*lines, ""]

    def table_of(self, what: str) -> list[str]:
        lines = [f"## {what.capitalize()}", ""]
        lines += ["| network | B | precision | how | ms a step (min .. max) | windows/s | GiB beside the panel | run |"]
        lines += ["| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"]
        for row in (row for row in self.rows if row["what"].startswith(what)):
            cells = [row["network"], f"{row['batch']:,}", row["precision"], row["how"]]
            if "ms" in row:
                cells += [f"{row['ms']:.2f} ({row['ms_min']:.2f} .. {row['ms_max']:.2f})"]
                cells += [f"{row['windows_per_s']:,.0f}", f"{row['peak_gib']:.2f}" if "peak_gib" in row else "-"]
            else:
                cells += [row["failed"], "-", "-"]
            cells.append(str(row["run"]))
            lines.append(f"| {' | '.join(cells)} |")
        return [*lines, ""]


def form_of(row: dict[str, Any]) -> str:
    """What decides a row's figures: "bf16", or "bf16 compiled"."""
    how = row["how"].replace("CUDA graph", "").strip(", ")
    return row["precision"] if how in ("", "eager") else f"{row['precision']} {how}"


def how_of(row: dict[str, Any] | None) -> str | None:
    return f"B {row['batch']:,}, {row['precision']}, {row['how']}" if row else None
