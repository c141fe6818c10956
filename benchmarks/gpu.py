"""How fast the network trains and scores on one GPU, with windows cut there from a panel's days. A CPU runs it small.

    python -m benchmarks.gpu [--series 1000000] [--seconds 255] [--out docs/gpu.md] [--json docs/gpu.json]
    python -m benchmarks.gpu --only losses,medians --base docs/gpu.json --out docs/gpu.md --json docs/gpu.json

Needs torch, numpy, pyarrow, scipy and safetensors. Made-up series of the simulator's shape (4 metrics, 6 behaviors, 3
tasks, 56 days, width 64), about three days in four without a row; nothing is measured on zeros. Times are CUDA events
around every step, medians after a warm-up. Parts that no time is left for, and parts that fail, are named on the page.
The last line is JSON. The second form measures those parts alone and puts them into an earlier run's figures.

A headline takes no form that learns or forecasts something else: ``gpu_page.LIMIT``.

B windows of a batch, N series, T days, M tasks, P metrics, F behaviors, C tokens, H heads, E width of a head, D width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_bed import (
    DAYS,
    SAMPLE,
    SPEC,
    Bed,
    Step,
    made_days,
    made_panel,
    milliseconds,
    precision,
    row_NT,
    scoring_step,
    size_bytes,
    training,
    training_step,
)
from benchmarks.gpu_page import FAIR, GOALS, PRECISIONS, Run, form_of
from m2m_model.config import ModelConfig
from m2m_model.data.features import ZERO, fit_inputs
from m2m_model.data.panel import Panel
from m2m_model.data.statistics import PanelStatistics
from m2m_model.network.encoder import PatchEmbedding, SummedEmbedding, attend, slot_rows
from m2m_model.network.model import M2M, Batch
from m2m_model.network.windows import Days


def machine(device: torch.device) -> tuple[str, str]:
    """The device's name, and the line that says what all of it ran on."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()})"
    parts = [name, f"{os.cpu_count()} cores", f"Python {platform.python_version()}", f"PyTorch {torch.__version__}"]
    return name, ", ".join([*parts, str(datetime.now(UTC).date()), f"code {code_digest()}"])


def code_digest() -> str:
    """Of the files that are measured, and of this one: a copy elsewhere has no history, or another."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted([*root.glob("m2m_model/**/*.py"), *root.glob("benchmarks/*.py")]):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def ceilings(run: Run) -> None:
    """What the device can do: bytes copied (read + written), and products."""
    cells, size = run.device, 2**28 if run.device.type == "cuda" else 2**22
    source, into = torch.rand(size, device=cells), torch.empty(size, device=cells)
    found = {
        "copy_bytes_per_s": 8 * size / statistics.median(milliseconds(partial(into.copy_, source), cells, 0.3)) * 1e3
    }
    side = 8192 if run.device.type == "cuda" else 256
    for name in PRECISIONS:
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        left, right = (torch.randn(side, side, device=cells, dtype=dtype) for _ in range(2))
        torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")

        found[f"{name}_flop_per_s"] = (
            2 * side**3 / statistics.median(milliseconds(partial(torch.mm, left, right), cells, 0.3)) * 1e3
        )
    run.raw["ceilings"] = found
    products = ", ".join(f"{name} {found[f'{name}_flop_per_s'] / 1e12:,.1f}" for name in PRECISIONS)
    run.sections["ceilings"] = (
        f"## The device's ceilings, measured in this run\n\nCopy {found['copy_bytes_per_s'] / 1e12:.2f} TB/s (read and "
        f"written); products of {side:,} x {side:,} random matrices, TFLOP/s: {products}."
    )
    run.say(run.sections["ceilings"].splitlines()[-1])


def flops_of(run: Run, bed: Bed) -> None:
    """Products per window, counted by PyTorch."""
    batch = 256
    counts = {}
    for what, step in (
        ("training", training_step(bed, "M2M", batch, "fp32", "eager")),
        ("scoring", scoring_step(bed, "M2M", batch, "fp32", "eager")),
    ):
        with FlopCounterMode(display=False) as counter:
            step()
        counts[what] = counter.get_total_flops() / batch
    run.raw["flop_per_window"] = counts
    lines = [f"{what} {count / 1e6:.2f} MFLOP" for what, count in counts.items()]
    text = f"## Floors\n\nProducts a window, counted by PyTorch: {', '.join(lines)}."
    if ceiling := run.raw.get("ceilings"):
        for number in PRECISIONS:
            most = [f"{what} {ceiling[f'{number}_flop_per_s'] / count:,.0f}" for what, count in counts.items()]
            text += f" At the {number} ceiling that is {', '.join(most)} windows/s at most."
    run.sections["floors"] = text
    run.say(text.splitlines()[-1])


def grid(run: Run, bed: Bed, batches: Sequence[int]) -> None:
    for batch in batches:
        for number in PRECISIONS:
            run.measure(
                "training",
                "M2M",
                batch,
                number,
                "eager",
                partial(training_step, bed, "M2M", batch, number, "eager"),
            )
    for batch in batches:
        for number in PRECISIONS:
            run.measure(
                "scoring",
                "M2M",
                batch,
                number,
                "eager",
                partial(scoring_step, bed, "M2M", batch, number, "eager"),
            )


def other_forms(run: Run, bed: Bed, what: str, kinds: Sequence[str], batch: int, number: str, how: str) -> None:
    for kind in kinds:
        if what == "training":
            run.measure(what, kind, batch, number, how, partial(training_step, bed, kind, batch, number, how))
        else:
            run.measure(what, kind, batch, number, how, partial(scoring_step, bed, kind, batch, number, how))
    if "compiled" in how:
        torch._dynamo.reset()


def to_the_host(run: Run, bed: Bed, batch: int, number: str) -> None:
    """Scoring, and all 45 figures a task copied to the host's memory."""
    form = "eager, copied to the host"
    run.measure(
        "scoring to the host",
        "M2M",
        batch,
        number,
        form,
        lambda: scoring_step(bed, "M2M", batch, number, "eager", True),
    )


def windows_alone(run: Run, bed: Bed, batch: int) -> None:
    """Cutting alone, on the device."""
    row_B = torch.randint(len(bed.series_X), (batch,), device=bed.device)
    series_B, cutoff_B = bed.series_X[row_B], bed.cutoff_X[row_B]

    def cut() -> tuple[Batch, Tensor]:
        return bed.examples(series_B, cutoff_B)

    spent = statistics.median(milliseconds(cut, bed.device, 0.5))
    run.raw["windows_alone_per_s"] = batch / spent * 1e3
    size = sum(tensor.nbytes for tensor in vars(cut()[0]).values()) / batch
    run.raw["bytes_a_window"] = size
    run.say(f"windows alone: {batch / spent * 1e3:,.0f} a second, {size:.0f} bytes each")


def from_host(run: Run, bed: Bed, panel: Panel, batch: int) -> None:
    """Panels that the device has no room for: their runs are copied to it, batch by batch."""
    days = Days.of(panel, bed.inputs.profile(panel), torch.device("cpu"))
    found: dict[str, float] = {}
    network = bed.network("M2M").train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def cut() -> Batch:
        series_B, cutoff_B = torch.randint(len(panel), (batch,)), torch.randint(60, panel.days - 8, (batch,))
        return bed.cut.of(days.runs(series_B, cutoff_B))

    target_BM = torch.rand(batch, len(SPEC.tasks), device=bed.device)

    def train() -> None:
        network.loss(cut(), target_BM).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def score() -> None:
        with torch.no_grad():
            windows = cut()
            network.likelihood.distribution(network(windows), windows.level_BM)

    for name, step in (("windows", cut), ("training", train), ("scoring", score)):
        torch.set_float32_matmul_precision("highest")
        found[name] = batch / statistics.median(milliseconds(step, bed.device, 0.8, warm_up=1)) * 1e3
    run.raw["from_host_windows_per_s"] = found
    lines = ["## Panels that stay on the host", ""]
    lines += [f"One process; the days of {batch:,} windows a batch are copied to the device; fp32, eager.", ""]
    lines += [
        "| | days on the host, windows/s | on the device, windows/s | times |",
        "| --- | ---: | ---: | ---: |",
    ]
    after = {"windows": run.raw.get("windows_alone_per_s")}
    for what in GOALS:
        row = run.best(what, batch=batch, precision="fp32", how="eager")
        after[what] = row and row["windows_per_s"]
    for name, speed in found.items():
        now = after[name]
        lines.append(f"| {name} | {speed:,.0f} | {f'{now:,.0f} | {now / speed:.1f}' if now else '- | -'} |")
    run.sections["from host"] = "\n".join(lines)
    run.say("; ".join(lines[-3:]))


def shares(run: Run, bed: Bed, batch: int, number: str) -> None:
    """Where a step's time goes: each side does what the one before it does, and more."""
    network = bed.network("M2M").train()
    assert isinstance(network, M2M)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def cut() -> tuple[Batch, Tensor]:
        row_B = torch.randint(len(bed.series_X), (batch,), device=bed.device)
        series_B, cutoff_B = bed.series_X[row_B], bed.cutoff_X[row_B]
        return bed.examples(series_B, cutoff_B)

    def encoded(windows: Batch) -> Tensor:
        views = [network.performance(windows.performance_BLP, windows.registered_BL)]
        if network.behavior is not None:
            views.append(network.behavior(windows.behavior_BLF, windows.registered_BL))
        return torch.cat(views, 1)

    def encoders() -> None:
        windows, _ = cut()
        with precision(number, bed.device):
            view_BX = encoded(windows)
        view_BX.backward(view_BX.detach())  # type: ignore[no-untyped-call]
        optimizer.zero_grad(set_to_none=True)

    def gradients() -> None:
        windows, target_BM = cut()
        with precision(number, bed.device):
            loss = network.loss(windows, target_BM)
        loss.backward()  # type: ignore[no-untyped-call]

    def whole_gradients() -> None:
        gradients()
        optimizer.zero_grad(set_to_none=True)

    def whole() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def view() -> None:
        with torch.no_grad():
            windows, _ = cut()
            with precision(number, bed.device):
                encoded(windows)

    def output() -> tuple[Tensor, Batch]:
        with torch.no_grad():
            windows, _ = cut()
            with precision(number, bed.device):
                return network(windows).float(), windows

    def laws() -> None:
        output_BMQ, windows = output()
        network.likelihood.distribution(output_BMQ, windows.level_BM)

    sides: dict[str, dict[str, Step]] = {
        "training": {
            "windows and targets": cut,
            "+ encoders, forward and backward": encoders,
            "+ S~, experts, meta, head, loss": whole_gradients,
            "+ clipping and AdamW": whole,
        },
        "scoring": {"windows": cut, "+ encoders": view, "+ S~, experts, meta, head": output, "+ distribution": laws},
    }
    lines = [f"## Where the time goes: B {batch:,}, {number}, eager", ""]
    lines += ["Each side does what the one before it does, and more.", ""]
    lines += ["| | ms | of the step |", "| --- | ---: | ---: |"]
    for what, steps in sides.items():
        network.train(what == "training")
        times = {name: statistics.median(milliseconds(step, bed.device, 0.5)) for name, step in steps.items()}
        total, last = list(times.values())[-1], 0.0
        for name, spent in times.items():
            lines.append(f"| {what}: {name} | {spent:.2f} | {(spent - last) / total:.0%} |")
            last = spent
        run.raw.setdefault("shares_ms", {})[f"{what} {number} {batch}"] = times
    run.sections[f"shares {number}"] = "\n".join(lines)
    print(run.sections[f"shares {number}"], flush=True)


def kernels(run: Run, bed: Bed, what: str, batch: int, number: str, how: str, most: int = 22) -> None:
    """The profiler's list of what ran longest on the device."""
    make = training_step if what == "training" else scoring_step
    step = make(bed, "M2M", batch, number, how)
    for _ in range(3):
        step()
    on_gpu = run.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, activity.CUDA] if on_gpu else [activity.CPU]
    if on_gpu:
        torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(2):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    if "compiled" in how:
        torch._dynamo.reset()
    found: dict[str, tuple[float, int]] = {}
    for event in profile.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0 and (not on_gpu or "CUDA" in str(event.device_type)):
            found[event.key] = (spent / 2e3, event.count // 2)
    ranked = sorted(found.items(), key=lambda item: -item[1][0])
    total = sum(spent for spent, _ in found.values())
    title = f"## Kernels of a {what} step: B {batch:,}, {number}, {how}"
    lines = [title, "", f"torch.profiler, a mean of 2 steps, {total:.2f} ms on the device in all.", ""]
    lines += ["| kernel | calls | ms | share |", "| --- | ---: | ---: | ---: |"]
    for name, (spent, count) in ranked[:most]:
        lines.append(f"| `{name.replace('|', '/')[:110]}` | {count} | {spent:.3f} | {spent / total:.1%} |")
    run.raw.setdefault("kernels", {})[f"{what} {number} {how} {batch}"] = [
        {"kernel": name, "ms": spent, "calls": count} for name, (spent, count) in ranked[:80]
    ]
    run.sections[f"kernels {what} {how}"] = "\n".join(lines)
    print(run.sections[f"kernels {what} {how}"], flush=True)


def losses(run: Run, bed: Bed, steps: int, batch: int, number: str, how: str) -> None:
    """The loss of a form after the same steps from the same seed, judged in fp32 on windows apart."""
    held = max(len(bed.series_X) // 20, 1)
    train_bed = replace(bed, series_X=bed.series_X[held:], cutoff_X=bed.cutoff_X[held:])
    network, step = training(train_bed, "M2M", batch, number, how)
    torch.manual_seed(2)
    seen = torch.stack([step() for _ in range(steps)])
    network.eval()
    judged: dict[str, list[Tensor]] = {"fp32": [], number: []}
    part = min(batch, 8192)
    for own, found in judged.items():
        for start in range(0, min(held, 16 * part) - part + 1, part):
            rows = slice(start, start + part)
            with torch.no_grad(), precision(own, bed.device):
                found.append(network.loss(*bed.examples(bed.series_X[rows], bed.cutoff_X[rows])))
    figures = [float(seen[-max(steps // 10, 1) :].mean())]
    figures += [float(torch.stack(judged[own]).mean()) for own in ("fp32", number)]
    if "compiled" in how:
        torch._dynamo.reset()
    said = f"{steps} steps of {batch:,} windows"
    if run.raw.get("losses_of") != said:
        run.raw |= {"losses_of": said, "losses": {}}  # losses after other steps are no match for these
    run.raw["losses"][form_of({"precision": number, "how": how})] = figures
    run.say(f"{number}, {how}, after {said}: " + ", ".join(f"{figure:.5f}" for figure in figures))


def agreement(run: Run, bed: Bed, batch: int) -> None:
    """How far medians of other forms lie from those of fp32, eager: the same weights, after a few steps."""
    network, step = training(bed, "M2M", batch, "fp32", "eager")
    for _ in range(100 if run.device.type == "cuda" else 3):
        step()
    weights = network.state_dict()
    forms = [(number, "eager") for number in PRECISIONS]
    if run.device.type == "cuda":
        forms += [("bf16", "compiled")]
    expected = None
    for number, how in forms:
        median = scoring_step(bed, "M2M", batch, number, how, weights=weights)()[2]
        median = median[len(median) // 2].double()
        expected = median if expected is None else expected
        apart = float((median - expected).abs().sum() / expected.abs().sum())
        if number != "fp32":
            run.raw.setdefault("median_apart", {})[form_of({"precision": number, "how": how})] = apart
        run.say(f"medians of {number}, {how}: {apart:.3%} from those of fp32")
    torch._dynamo.reset()


def tried(run: Run, bed: Bed, batch: int) -> None:
    """Parts of the encoder in several forms, forward and backward, alone."""
    device, config = bed.device, bed.config
    width, heads = config.width, config.heads
    windows = bed.windows(bed.series_X[:batch], bed.cutoff_X[:batch])
    embedding = PatchEmbedding(len(SPEC.metrics), bed.inputs.codes, 56, config.patch_days, width).to(device)
    table = embedding.value
    code_XS = windows.performance_BLP.reshape(-1, config.patch_days * len(SPEC.metrics))
    tokens = len(code_XS) // batch
    split_BC3HE = torch.randn(batch, tokens, 3, heads, width // heads, device=device, requires_grad=True)
    present_BC = windows.registered_BL.view(batch, tokens, -1).any(-1)
    present_BC[:, -1] = True

    def attended(form: Callable[..., Tensor], dtype: torch.dtype) -> Callable[[], Tensor]:
        def mix() -> Tensor:
            query, key, value = split_BC3HE.to(dtype).permute(2, 0, 3, 1, 4)
            return form(query, key, value, present_BC)

        return mix

    def library(query: Tensor, key: Tensor, value: Tensor, present_BC: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=present_BC[:, None, None])

    def summed() -> Tensor:
        total_XD: Tensor = SummedEmbedding.apply(code_XS, table.weight)  # type: ignore[no-untyped-call]
        return total_XD

    torch.backends.cuda.enable_cudnn_sdp(False)
    sides: dict[str, tuple[Callable[[], Tensor], str]] = {}
    for number in ("fp32", "bf16"):
        dtype = torch.bfloat16 if number == "bf16" else torch.float32
        sides |= {
            f"embedding: EmbeddingBag, {number}": (lambda: table(slot_rows(code_XS, bed.inputs.codes)), number),
            f"embedding: SummedEmbedding, {number}": (summed, number),
            f"attention: scaled_dot_product_attention, {number}": (attended(library, dtype), number),
            f"attention: attend, {number}": (attended(attend, dtype), number),
        }
        if device.type == "cuda":
            whole, part = torch.compile(attend, dynamic=False), torch.compile(summed, dynamic=False)
            sides[f"embedding: SummedEmbedding, compiled, {number}"] = (part, number)
            sides[f"attention: attend, compiled, {number}"] = (attended(whole, dtype), number)
    lines = [f"## Forms of the encoder's parts, alone: B {batch:,}", ""]
    lines += ["| | forward, ms | forward and backward, ms |", "| --- | ---: | ---: |"]
    leaves = [table.weight, split_BC3HE]
    for name, (side, number) in sides.items():
        try:
            with precision(number, device):
                down = torch.randn_like(side())

            def forward(side: Callable[[], Tensor] = side, number: str = number) -> None:
                with torch.no_grad(), precision(number, device):
                    side()

            def both(side: Callable[[], Tensor] = side, number: str = number, down: Tensor = down) -> None:
                with precision(number, device):
                    result = side()
                torch.autograd.grad(result, leaves, down, allow_unused=True)

            spent = [statistics.median(milliseconds(step, device, 0.25)) for step in (forward, both)]
        except Exception as error:  # noqa: BLE001 - a form that this machine cannot run is a finding
            lines.append(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:80]} | - |")
            continue
        run.raw.setdefault("tried_ms", {})[name] = spent
        lines.append(f"| {name} | {spent[0]:.2f} | {spent[1]:.2f} |")
    if device.type == "cuda":
        torch._dynamo.reset()
    run.sections["forms of parts"] = "\n".join(lines)
    print(run.sections["forms of parts"], flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, help="1,000,000 on a GPU, 4,000 on a CPU")
    parser.add_argument("--days", type=int, default=DAYS, help="of the panel")
    parser.add_argument("--batches", help="sizes, with commas between")
    parser.add_argument("--seconds", type=float, default=255, help="no part starts after this; 30 more end the run")
    parser.add_argument("--only", default="", help="beginnings of parts' names, with commas between: no others")
    parser.add_argument("--base", type=Path, help="raw figures of an earlier run, which this one replaces or adds to")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    parser.add_argument("--json", type=Path, help="also write the raw figures to this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    device = torch.device(asked.device)
    on_gpu = device.type == "cuda"
    only = tuple(name for name in asked.only.split(",") if name)
    run = Run(device, not on_gpu, asked.seconds, asked.out, asked.json, only)
    if asked.base:
        run.raw = json.loads(asked.base.read_text(encoding="utf-8"))
        run.rows, run.sections = run.raw.pop("rows"), run.raw.pop("sections")
        del run.raw["notes"], run.raw["summary"]
    series = asked.series or (1_000_000 if on_gpu else 4_000)
    batches = [1024, 4096, 16384, 65536, 131072] if on_gpu else [256]
    if asked.batches:
        batches = [int(size) for size in asked.batches.split(",")]
    run.raw["device"], made = machine(device)
    run.raw.setdefault("runs", []).append(f"{made}{f': {asked.only}' if only else ''}")
    gpus = torch.cuda.device_count() if on_gpu else 0
    run.raw["processes"] = f"One process; torchrun over more was not measured (GPUs of this machine: {gpus})."

    def out_of_time() -> None:
        run.notes.append(f"the run was ended after {run.spent:.0f} s")
        run.write()
        print(run.page(), flush=True)
        print(json.dumps(run.summary()), flush=True)
        os._exit(0)

    watchdog = threading.Timer(asked.seconds + 30, out_of_time)
    watchdog.daemon = True
    watchdog.start()

    torch.manual_seed(1)
    if on_gpu:
        torch.zeros(1, device=device)
    run.part("ceilings", lambda: ceilings(run))
    run.say("making data ...")
    panel = made_panel(min(SAMPLE, series), asked.days)
    inputs = fit_inputs(PanelStatistics.of(panel, panel.last_day))
    days = made_days(series, asked.days, device)
    bed, size = Bed.of(inputs, days, ModelConfig()), size_bytes(days)
    empty = 1 - float(row_NT(days).float().mean())
    windows = bed.windows(bed.series_X[:50_000], bed.cutoff_X[:50_000])
    empty_windows = float((windows.performance_BLP[..., 0] < ZERO).float().mean())
    text = (
        f"{series:,} made-up series over {asked.days} days; {empty:.0%} of all days and {empty_windows:.0%} of the "
        f"days in training windows have no row. They take {size / 2**30:.1f} GiB, "
        f"{size / series:,.0f} bytes a series"
    )
    if on_gpu:
        memory = torch.cuda.get_device_properties(device).total_memory
        fit = (memory - 20 * 2**30) * series // size
        text += f": about {fit / 1e6:.0f} million fit beside a step's 20 GiB in the device's {memory / 2**30:.0f} GiB"
    run.raw["data"] = f"{text}. {len(bed.series_Y):,} of them are eligible on the newest day and are scored."
    run.say(run.raw["data"])

    large = max(size for size in batches if size <= 65536)
    run.part("windows alone", lambda: windows_alone(run, bed, large))
    run.part("products a window", lambda: flops_of(run, bed))
    run.part("batches and precisions", lambda: grid(run, bed, batches))
    fair, networks = min(large, FAIR), ("M2M", "backbone", "plain PyTorch")
    best = run.best("scoring", how="eager") or {"batch": large, "precision": "bf16"}
    scored = best["batch"], best["precision"]
    run.part("scoring to the host", lambda: to_the_host(run, bed, *scored))
    run.part("plain training", lambda: other_forms(run, bed, "training", networks, fair, "bf16", "eager"))
    run.part("plain scoring", lambda: other_forms(run, bed, "scoring", networks[1:], *scored, "eager"))
    run.part("where the time goes, bf16", lambda: shares(run, bed, large, "bf16"))
    run.part("kernels of training", lambda: kernels(run, bed, "training", large, "bf16", "eager"))
    run.part("kernels of scoring", lambda: kernels(run, bed, "scoring", large, "bf16", "eager"))
    small = 4096 if on_gpu else large
    run.part("days on the host", lambda: from_host(run, bed, panel, small))
    if on_gpu:
        for size in dict.fromkeys((1024, 4096, large)):
            for what in GOALS:
                run.part(
                    f"CUDA graph, {what}, B {size:,}",
                    partial(other_forms, run, bed, what, ("M2M",), size, "bf16", "CUDA graph"),
                )
    steps = 150 if on_gpu else 4
    for number in PRECISIONS:
        part = partial(losses, run, bed, steps, fair, number, "eager")
        run.part(f"losses {number} eager", part, 8 if on_gpu else 0)
    if on_gpu:

        def compiled(what: str, kind: str, batch: int, number: str = "bf16", how: str = "compiled") -> None:
            other_forms(run, bed, what, (kind,), batch, number, how)

        # The compiler's cache keeps what a batch of one size made: parts after the first of a kind are short.
        run.part("compiled training", partial(compiled, "training", "M2M", fair), 40)
        run.part("losses bf16 compiled", partial(losses, run, bed, steps, fair, "bf16", "compiled"), 15)
        run.part("compiled scoring", partial(compiled, "scoring", "M2M", large), 25)
        run.part("compiled graph", partial(compiled, "scoring", "M2M", large, how="compiled, CUDA graph"), 10)
    run.part("medians", lambda: agreement(run, bed, large), 15 if on_gpu else 0)
    if on_gpu:
        run.part("compiled plain training", partial(compiled, "training", "plain PyTorch", fair), 25)
        run.part("compiled tf32 training", partial(compiled, "training", "M2M", fair, "tf32"), 35)
        run.part("losses tf32 compiled", partial(losses, run, bed, steps, fair, "tf32", "compiled"), 12)
        run.part("compiled backbone training", partial(compiled, "training", "backbone", fair), 25)
        run.part("compiled plain scoring", partial(compiled, "scoring", "plain PyTorch", large), 20)
        run.part("compiled backbone scoring", partial(compiled, "scoring", "backbone", large), 20)
        for what, batch in (("training", fair), ("scoring", large)):
            run.part(f"kernels of {what}, compiled", partial(kernels, run, bed, what, batch, "bf16", "compiled"), 10)
    run.part("forms of parts", lambda: tried(run, bed, large), 25)
    if on_gpu:
        run.part("where the time goes, fp32", lambda: shares(run, bed, large, "fp32"), 5)
    watchdog.cancel()
    run.write()
    print(run.page())
    print(json.dumps(run.summary()))


if __name__ == "__main__":
    main()
