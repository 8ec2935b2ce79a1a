"""Writes results as Markdown tables, with the targets met or missed, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Results = dict[str, Any]
Key = tuple[str, str, str, int]

PEERS = (
    "pyfunc", "pyfunc-async", "pyfunc-plain", "pyfunc-nofast", "numpy-lean", "numpy-w0",
    "numpy-default", "constant", "pytriton", "pytriton-batcher", "kserve", "kserve-pyfunc",
    "litserve", "bentoml", "bare-rest", "bare-grpc",
)  # fmt: skip

# (other system, workload, route, clients, figure, smallest ratio of our figure to the other's)
TARGETS = (
    *(("numpy-lean", w, r, c, "rps", 1.0)
      for w in ("w1", "w4") for r in ("json", "typed", "raw") for c in (1, 8, 32)),
    ("numpy-lean", "w2", "raw", 1, "rps", 8.0),
    ("numpy-lean", "w2", "typed", 1, "rps", 8.0),
    ("numpy-lean", "w2", "json", 1, "rps", 1.7),
    ("numpy-lean", "w3", "raw", 1, "rps", 18.0),
    ("numpy-lean", "w3", "typed", 1, "rps", 13.0),
    ("numpy-lean", "w3", "json", 1, "rps", 2.2),
    ("numpy-default", "w1", "json", 32, "rps", 5.0),
    ("pytriton", "w1", "json", 1, "rps", 3.0),
    ("pytriton", "w1", "raw", 1, "rps", 3.0),
    ("pytriton-batcher", "w1", "json", 32, "rps", 1.5),
    ("pytriton-batcher", "w1", "raw", 32, "rps", 1.0),
    ("pytriton-batcher", "w1", "typed", 32, "rps", 1.0),
    ("pytriton", "w2", "raw", 1, "rps", 2.5),
    ("pytriton", "w3", "raw", 1, "rps", 1.2),
    ("pytriton", "w3", "typed", 1, "rps", 1.2),
    ("pytriton", "w3", "binary", 1, "rps", 2.0),
    ("pytriton", "w3", "json", 1, "rps", 2.0),
    ("kserve", "w1", "json", 1, "rps", 1.0),
    ("kserve", "w1", "raw", 1, "rps", 1.0),
    ("kserve", "w3", "raw", 1, "rps", 1.0),
    *(("kserve", w, r, 1, "rps", 10.0)
      for w in ("w2", "w3") for r in ("json", "typed", "binary")),
    ("constant", "w1", "json", 1, "rps", 1 / 1.25),
    ("constant", "w1", "raw", 1, "rps", 1 / 1.10),
    ("bare-grpc", "w3", "raw", 1, "rps", 1 / 1.15),
)  # fmt: skip


def write(results: Results, folder: Path) -> None:
    """Writes results.md and results.png."""
    (folder / "results.md").write_text(_markdown(results))
    _plot(results, folder / "results.png")


def _markdown(results: Results) -> str:
    machine = results["machine"]
    parts = [
        f"Measured on {machine['cpu']}, Linux {machine['kernel']}, CPython {machine['python']}; "
        f"server and client on a core each; medians of {results['repeats']} interleaved runs of "
        f"{results['seconds']:g} s. Command: `{results['command']}`.",
        "## Targets\n\n" + _target_table(results),
        "## Requests per second\n\n" + _table(results, "rps", "{:.0f}"),
        "## Median latency, ms\n\n" + _table(results, "p50_ms", "{:.2f}"),
        "## Server CPU per request, us\n\n" + _table(results, "cpu_us", "{:.0f}"),
        "## Start and memory\n\n" + _start_table(results),
        "## Beside the hand-written runtime\n\n" + _footprint_table(results["footprint"]),
    ]
    return "\n\n".join(parts) + "\n"


def _by_key(results: Results) -> dict[Key, dict[str, Any]]:
    return {(c["system"], c["workload"], c["route"], c["clients"]): c for c in results["cases"]}


def _target_table(results: Results) -> str:
    cases = _by_key(results)
    rows = [
        "| against | workload | route | clients | target | measured | |",
        "|---|---|---|---|---|---|---|",
    ]
    for against, workload, route, clients, figure, target in TARGETS:
        ours = cases.get(("pyfunc", workload, route, clients))
        theirs = cases.get((against, workload, route, clients))
        if ours is None or theirs is None:
            continue
        ratio = ours[figure] / theirs[figure]
        rows.append(
            f"| {against} | {workload.upper()} | {route} | {clients} | {target:.2f} x "
            f"| {ratio:.2f} x | {_verdict(ratio >= target)} |"
        )
    return "\n".join(rows)


def _table(results: Results, figure: str, form: str) -> str:
    cases = _by_key(results)
    names = [name for name in PEERS if any(key[0] == name for key in cases)]
    columns = list(dict.fromkeys(key[1:] for key in cases))
    rows = ["| | " + " | ".join(f"{w.upper()} {r} x{c}" for w, r, c in columns) + " |"]
    rows.append("|---" * (len(columns) + 1) + "|")
    for name in names:
        values = [cases.get((name, *column)) for column in columns]
        cells = [form.format(value[figure]) if value else "-" for value in values]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _start_table(results: Results) -> str:
    rows = ["| | ready, s | idle, MB | peak, MB |", "|---|---|---|---|"]
    for name, start in results["start"].items():
        rows.append(
            f"| {name} | {start['seconds_to_ready']:.2f} | {start['idle_mb']:.0f} "
            f"| {start['peak_mb']:.0f} |"
        )
    return "\n".join(rows)


def _footprint_table(found: dict[str, Any]) -> str:
    ours, theirs = found["start"]["pyfunc"], found["start"]["numpy-lean"]
    ready = ours["seconds_to_ready"] - theirs["seconds_to_ready"]
    idle = ours["idle_mb"] - theirs["idle_mb"]
    rows = [
        "| | pyfunc | numpy-lean | bare-grpc | target | |",
        "|---|---|---|---|---|---|",
        f"| ready, s | {ours['seconds_to_ready']:.2f} | {theirs['seconds_to_ready']:.2f} "
        f"| - | + 0.30 | {_verdict(ready <= 0.3)} |",
        f"| idle, MB | {ours['idle_mb']:.0f} | {theirs['idle_mb']:.0f} "
        f"| - | + 10 | {_verdict(idle <= 10)} |",
        f"| import beyond MLServer's, s | {found['import_seconds']:.2f} | - | - | - | |",
        f"| `mlserver-pyfunc --help`, s | {found['help_seconds']:.2f} | - | - | 0.20 "
        f"| {_verdict(found['help_seconds'] <= 0.2)} |",
    ]
    for route, memory in found["w3_memory"]["pyfunc"].items():
        limit = 4 * memory["body_mb"]
        peaks = [found["w3_memory"][name].get(route) for name in ("numpy-lean", "bare-grpc")]
        cells = [f"{peak['above_idle_mb']:.0f}" if peak else "-" for peak in peaks]
        rows.append(
            f"| peak of W3 {route} above idle, MB | {memory['above_idle_mb']:.0f} "
            f"| {' | '.join(cells)} | 4 x {memory['body_mb']:.1f} = {limit:.0f} "
            f"| {_verdict(memory['above_idle_mb'] <= limit)} |"
        )
    return "\n".join(rows)


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _plot(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = _by_key(results)
    systems = [name for name in _LABELS if name in results["start"]]
    panels = [("w1", 32 if any(key[3] == 32 for key in cases) else 8), ("w3", 1)]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
    titles = {"w1": "FP32 [1, 4], {} clients", "w3": "FP32 [8, 131072] (4 MiB), {} client"}
    for axis, (workload, clients) in zip(axes, panels, strict=True):
        routes = [r for r in _ROUTES if ("pyfunc", workload, r, clients) in cases]
        width = 0.8 / len(systems)
        for place, system in enumerate(systems):
            values = [cases.get((system, workload, r, clients), {}).get("rps", 0) for r in routes]
            spots = [x + (place - (len(systems) - 1) / 2) * width for x in range(len(routes))]
            bars = axis.bar(spots, values, width, label=_LABELS[system])
            axis.bar_label(bars, [f"{v:.0f}" if v else "" for v in values], fontsize=5, padding=1)
        axis.set_xticks(range(len(routes)), [_ROUTES[r] for r in routes])
        axis.set_title(titles[workload].format(clients), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("requests per second")
    axes[1].legend(loc="upper left", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


_LABELS = {
    "pyfunc": "mlserver-pyfunc, lean settings",
    "numpy-lean": "hand-written runtime, lean settings",
    "numpy-default": "hand-written runtime, MLServer's defaults",
    "pytriton": "PyTriton 0.7, batcher off",
    "pytriton-batcher": "PyTriton 0.7, dynamic batcher",
    "kserve": "KServe 0.21 custom model",
}
_ROUTES = {"json": "REST JSON", "binary": "REST binary", "typed": "gRPC typed", "raw": "gRPC raw"}
