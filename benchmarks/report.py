"""Answers: figures per way, their ratios, and a table of them."""

from typing import Any

from benchmarks.measure import Figures

__all__ = ["Answer", "answer", "markdown", "ratios", "table"]

Answer = dict[str, Any]
_MIB = 2**20


def answer(figures: dict[str, Figures], **about: object) -> Answer:
    """Figures of every way, ratios to ours, and facts about the benchmark."""
    return {**{name: value.tree() for name, value in figures.items()}, "ratio": ratios(figures), "about": about}


def ratios(figures: dict[str, Figures]) -> dict[str, float]:
    """How many times as much the reference implementation takes of each resource; and what we take beyond the floor."""
    ours, published = figures["ours"], figures.get("reference_implementation")
    result = {}
    if published is not None:
        result["seconds"] = published.seconds / ours.seconds
        result["cpu_seconds"] = published.cpu_seconds / ours.cpu_seconds
        if ours.peak_bytes and published.peak_bytes:
            result["peak_bytes"] = published.peak_bytes / ours.peak_bytes
    for name, other in figures.items():
        if name not in ("ours", "reference_implementation"):
            result[f"ours / {name}, cpu_seconds"] = ours.cpu_seconds / other.cpu_seconds
    return {key: round(value, 4) for key, value in result.items()}


def table(benchmark: str, content: Answer) -> str:
    """An answer as lines of text."""
    about = ", ".join(f"{key} {value}" for key, value in content["about"].items())
    lines = [f"{benchmark}: {about}"]
    for name, figures in content.items():
        if name in ("ratio", "about"):
            continue
        memory = f"{figures['peak_bytes'] / _MIB:9.1f} MiB" if figures["peak_bytes"] is not None else ""
        lines.append(
            f"  {name:<20} {figures['seconds']:10.4f} s (spread {figures['spread']:.0%})  "
            f"{figures['cpu_seconds']:10.4f} CPU s {memory}"
        )
    lines += [f"  {name}: {value:.3g}" for name, value in content["ratio"].items()]
    return "\n".join(lines)


def markdown(answers: dict[str, Answer]) -> str:
    """All answers as the table of docs/performance.md."""
    columns = (
        "benchmark",
        *("ours, CPU s", "reference implementation", "ratio"),
        *("ours, MiB", "reference implementation", "ratio"),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for benchmark, content in answers.items():
        lines.append(_row(benchmark, content, "", ""))
        if "ours, whole run" in content:
            lines.append(_row(f"{benchmark}, to its end", content, ", whole run", "whole run, "))
    return "\n".join(lines)


def _row(benchmark: str, content: Answer, way: str, figure: str) -> str:
    ours, published, ratio = content[f"ours{way}"], content[f"reference_implementation{way}"], content["ratio"]
    cells = [ours["cpu_seconds"], published["cpu_seconds"], ratio.get(f"{figure}cpu_seconds")]
    cells += [_mib(ours["peak_bytes"]), _mib(published["peak_bytes"]), ratio.get(f"{figure}peak_bytes")]
    return f"| {' | '.join([benchmark, *map(_short, cells)])} |"


def _mib(size: int | None) -> float | None:
    return None if size is None else size / _MIB


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
