"""The results of ``python -m benchmarks gpu`` as a text to read: verdicts first, then speed and memory."""

from collections.abc import Mapping
from typing import Any

__all__ = ["report_text"]

_SPEED = "steps_per_second"


def report_text(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown; of an unfinished check too."""
    return "\n".join(
        [
            "# What a GPU showed",
            "",
            _machine(results.get("environment", {})),
            "",
            *_verdicts(results),
            *_speeds(results),
            *_others(results),
        ]
    )


def _machine(facts: Mapping[str, Any]) -> str:
    packages = facts.get("packages") or {}
    known = {
        "device": facts.get("device"),
        "driver": facts.get("driver"),
        "CUDA": facts.get("cuda"),
        "cuDNN": facts.get("cudnn"),
        "torch": packages.get("torch"),
        "cores": facts.get("cores"),
        "commit": facts.get("commit"),
    }
    return (
        ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
        or "The machine is not known."
    )


def _verdicts(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| check | verdict | facts |", "|---|---|---|"]
    for name, result in results.items():
        if "failed" in result:
            lines.append(f"| {name} | **failed** | {_cell(result['failed'])} |")
        elif "left out" in result:
            lines.append(f"| {name} | left out | {_cell(result['left out'])} |")
        elif "within" in result:
            verdict = "good" if result["within"] else "**differs**"
            facts = {key: value for key, value in result.items() if isinstance(value, float | int | str)}
            text = ", ".join(
                f"{key} {_number(value)}" for key, value in facts.items() if key not in ("within", "losses")
            )
            lines.append(f"| {name} | {verdict} | {_cell(text)} |")
    return [*lines, ""]


def _speeds(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "| step | steps a second | first two steps, s | peak, MiB | reserved, MiB | counted by `plan`, MiB "
        "| host waits a step | kernels a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = (
        *(_SPEED, "first_two_steps_seconds", "peak_mib", "reserved_mib", "counted_mib"),
        *("host_waits_a_step", "kernels_a_step"),
    )
    for name, result in results.items():
        if _SPEED in result:
            cells = (_cell(_number(result.get(key, ""))) for key in keys)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _others(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, result in results.items():
        if name != "environment" and not any(key in result for key in ("failed", "left out", "within", _SPEED)):
            lines.append(f"- {name}: {', '.join(f'{key} {_number(value)}' for key, value in result.items())}")
    whole = results.get("whole run", {}).get("stages", {})
    lines += [f"- whole run, {stage}: {facts}" for stage, facts in whole.items()]
    return [*lines, ""]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:400]
