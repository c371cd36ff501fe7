"""Everything that only a GPU can show, in ten minutes: ``python -m benchmarks gpu`` (``make gpu-check``).

Generated images of the published size pass through the product's own loop, objectives, scoring and checkpoints, and its
commands run as a user runs them. Checks of one kind share a process, and the report is written after each of them: a
check that fails, hangs, or takes the process down is named in the report, and the others go on. With ``--small --device
cpu`` the same code runs anywhere in seconds, for tests.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import report_text

__all__ = ["checks", "main", "run_here"]

_LIMIT = 400.0
"""Seconds of a check."""
_PRECISIONS = ("bfloat16", "float32", "float16")
Check = Callable[[], dict[str, Any]]
Results = dict[str, dict[str, Any]]


def checks(device: str, *, small: bool) -> dict[str, dict[str, Check]]:
    """All checks by group and name, the most telling ones first; a group's checks share a process."""
    from benchmarks import gpu_correct, gpu_steps, gpu_whole
    from benchmarks.gpu_scoring import scoring_rate
    from domainbridge.runtime.device import resolve_runtime

    runtime = resolve_runtime(device)
    size, transformer = (gpu_steps.SMALL,) * 2 if small else (gpu_steps.FULL, gpu_steps.TRANSFORMER)
    kinds, every_kind = gpu_steps.KINDS, gpu_steps.objectives(size, runtime.device)
    measured = gpu_steps.measured_steps

    def scoring(precision: str) -> dict[str, Any]:
        network = every_kind["source-only"]().student
        return scoring_rate(network, size.image, size.images, runtime, precision)

    return {
        "machine": {
            "environment": partial(_environment, runtime),
            "out of memory": partial(gpu_correct.out_of_memory, size, runtime),
        },
        "commands": {
            "whole run": partial(gpu_whole.whole_run, device),
            "killed and resumed": partial(gpu_whole.killed_and_resumed, device),
        },
        "as on the CPU": {
            **{
                f"losses, {kind}": partial(gpu_correct.losses_as_on_the_cpu, kind, size, runtime) for kind in every_kind
            },
            "prototypes and classes": partial(gpu_correct.classes_as_on_the_cpu, size, runtime),
            "bfloat16 beside float32": partial(gpu_correct.low_precision, "bfloat16", size, runtime),
            "float16 beside float32": partial(gpu_correct.low_precision, "float16", size, runtime),
        },
        "processes": {
            f"two processes, {precision}": partial(gpu_correct.two_processes, precision, runtime, small=small)
            for precision in ("float32", "bfloat16")
        },
        **{
            f"steps, {precision}": {
                f"{kind}, {precision}": partial(measured, kind, size, runtime, precision) for kind in kinds
            }
            for precision in _PRECISIONS[:2]
        },
        "transformer": {
            f"ViT-B, {kind}, {precision}": partial(measured, kind, transformer, runtime, precision)
            for kind, precision in (("class", "bfloat16"), ("distillation", "bfloat16"), ("class", "float32"))
        },
        "scoring": {f"scoring, {precision}": partial(scoring, precision) for precision in _PRECISIONS[:2]},
        "twice": {"the same steps twice": partial(gpu_correct.the_same_steps_twice, size, runtime)},
        "steps, float16": {f"{kind}, float16": partial(measured, kind, size, runtime, "float16") for kind in kinds},
        "compiled": {"class, bfloat16, compiled": partial(measured, "class", size, runtime, "bfloat16", compiled=True)},
    }


def _environment(runtime: Any) -> dict[str, Any]:
    import torch

    from domainbridge.runtime.device import environment

    facts: dict[str, Any] = {**environment(runtime), "cores": len(os.sched_getaffinity(0))}
    if runtime.device.type == "cuda":
        properties = torch.cuda.get_device_properties(runtime.device)
        free, _ = torch.cuda.mem_get_info(runtime.device)
        facts |= {"capability": [properties.major, properties.minor], "free_memory_bytes": free}
        facts |= {"gpus": torch.cuda.device_count(), "kernels_for": torch.cuda.get_arch_list()}
        command = ["nvidia-smi", "--query-gpu=name,clocks.max.sm,power.limit,mig.mode.current", "--format=csv"]
        with suppress(OSError):
            facts["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return facts


def run_here(every: Mapping[str, Check], tell: Callable[[dict[str, Any]], None], minutes: float) -> None:
    """Carry out checks one after the other; each beginning and each result is told.

    After a fault of the device itself the process ends: every later call of such a process fails too.
    """
    began = time.monotonic()
    for name, check in every.items():
        if time.monotonic() - began > 60 * minutes:
            return
        tell({"begins": name})
        started, result = time.monotonic(), {}
        try:
            result = check()
        except Exception as error:  # every fault of a check is a finding
            result = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(limit=-6)}
        tell({"name": name, "result": {**result, "seconds_of_the_check": round(time.monotonic() - started, 1)}})
        if "AcceleratorError" in result.get("failed", "") or "CUDA error" in result.get("failed", ""):
            return
        _free_memory()


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _in_process(
    names: list[str], options: list[str], minutes: float, take: Callable[[str, dict[str, Any]], None]
) -> None:
    """Carry out checks in a process of their own; ``take`` gets each result, also that of a check that ended it."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        command = [sys.executable, "-m", "benchmarks", "gpu", "--lines", str(lines), "--minutes", str(minutes)]
        command += [*options, *(word for name in names for word in ("--only", name))]
        # Without the variable, cuBLAS has no deterministic algorithms.
        environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **os.environ}
        process = subprocess.Popen(command, start_new_session=True, env=environment)
        current, began, reason = names[0], time.monotonic(), ""
        try:
            for entry in _entries(lines, process):
                if "begins" in entry:
                    current, began = entry["begins"], time.monotonic()
                elif "name" in entry:
                    take(entry["name"], entry["result"])
                    current = ""
                elif time.monotonic() - began > _LIMIT:
                    reason = f"no result within {_LIMIT:.0f} s"
                    break
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if current:
            take(current, {"failed": reason or f"its process ended with status {process.returncode}"})


def _entries(lines: Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What a process tells, until it ends; an empty entry every fifth of a second."""
    told = 0
    while True:
        ended = process.poll() is not None
        complete = lines.read_text(encoding="utf-8").split("\n")[:-1] if lines.exists() else []
        yield from (json.loads(line) for line in complete[told:])
        told = len(complete)
        if ended:
            return
        yield {}
        time.sleep(0.2)


def _all(arguments: argparse.Namespace, options: list[str]) -> Results:
    """Every group in turn; the report is written after each result."""
    results: Results = {}
    began = time.monotonic()

    def take(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        shown = {key: value for key, value in result.items() if key != "traceback"}
        print(f"{name}: {json.dumps(shown, default=str)}", flush=True)
        _write(arguments.out, results)

    for group in _names(arguments):
        left = group
        while left:
            minutes = arguments.minutes - (time.monotonic() - began) / 60
            if minutes <= 0:
                for name in left:
                    results[name] = {"left out": f"{arguments.minutes:g} minutes were over"}
                break
            _in_process(left, options, minutes, take)
            left = [name for name in left if name not in results]
    _write(arguments.out, results)
    return results


def _names(arguments: argparse.Namespace) -> list[list[str]]:
    """Names of the checks, by group; learned on the CPU, so that this process keeps nothing of the GPU."""
    every = checks("cpu", small=arguments.small)
    groups = [[name for name in group if not arguments.only or name in arguments.only] for group in every.values()]
    return [group for group in groups if group]


def _write(out: Path | None, results: Results) -> None:
    if out is None:
        return
    for path, text in (
        (out, json.dumps(results, indent=1, default=str) + "\n"),
        (out.with_suffix(".md"), report_text(results)),
    ):
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(text)
        beside.replace(path)


def main(given: list[str] | None = None) -> int:
    """The command; the exit status is 1 if a check failed or found a difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument(
        "--out", type=Path, help="path to a JSON file for the results; a .md file beside it is to be read"
    )
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--small", action="store_true", help="a small network on small images, for tests")
    parser.add_argument("--minutes", type=float, default=10.0, help="no check begins later; default: 10")
    parser.add_argument("--only", action="append", default=[], help="name of a check; may be given several times")
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    options = ["--device", arguments.device, *(["--small"] if arguments.small else [])]
    if arguments.lines is None:
        known = [name for group in checks("cpu", small=arguments.small).values() for name in group]
        if missing := [name for name in arguments.only if name not in known]:
            parser.error(f"no such check: {', '.join(missing)}; there are {'; '.join(known)}")
        if arguments.out is not None:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
        results = _all(arguments, options)
        print(report_text(results))
        return int(any("failed" in result or result.get("within") is False for result in results.values()))
    _in_this_process(arguments)
    return 0


def _in_this_process(arguments: argparse.Namespace) -> None:
    """Carry out the checks ``--only`` and write what happens as lines of JSON."""
    with arguments.lines.open("a", encoding="utf-8") as file:

        def tell(entry: dict[str, Any]) -> None:
            file.write(json.dumps(entry, default=str) + "\n")
            file.flush()

        try:
            groups = checks(arguments.device, small=arguments.small)
        except Exception as error:  # no such device, or it does not answer: so it is for all
            for name in arguments.only:
                tell({"name": name, "result": {"failed": f"{type(error).__name__}: {error}"}})
            return
        every = {name: check for group in groups.values() for name, check in group.items() if name in arguments.only}
        run_here(every, tell, arguments.minutes)
