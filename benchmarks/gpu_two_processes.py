"""A few class-path steps of two processes, then the same ones of one: BatchNorm and gradients over processes, on GPUs.

torchrun --nproc-per-node 2 -m benchmarks.gpu_two_processes OUT.json cuda|cpu float32|bfloat16 0|1

On a machine with two GPUs each process takes one (NCCL); with one GPU both share it, and the messages go over gloo.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.gpu_correct import small_of
from benchmarks.gpu_steps import FULL, SMALL, objectives, train
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.distributed import Processes, averaging_gradients
from domainbridge.runtime.torchrun import local_rank

_STEPS = 4


def main(out: Path, kind: str, precision: str, size_name: str) -> None:
    nccl = kind == "cuda" and torch.cuda.device_count() > 1
    device = torch.device("cuda", local_rank() if nccl else 0) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False
    dist.init_process_group("nccl" if nccl else "gloo")
    control = dist.new_group(backend="gloo")
    assert isinstance(control, dist.ProcessGroup)
    size = small_of(SMALL if size_name == "1" else FULL)
    processes = Processes(dist.get_rank(), 2, control)
    runtime, alone = Runtime(device, 0, processes), Runtime(device, 0)

    def place(network):  # type: ignore[no-untyped-def]
        return runtime.place(network, channels_last=True)

    objective = objectives(size, device, place)["class"]()
    objective.confidence, objective.mean_over_devices = 0.06, processes.mean  # type: ignore[attr-defined]
    student = objective.student
    objective.student = averaging_gradients(student, processes, device)
    began = time.perf_counter()
    two = train(objective, size, runtime, _STEPS, precision, 1, student)
    seconds = time.perf_counter() - began
    one = train(objectives(size, device)["class"](), size, alone, _STEPS, precision, 1)
    if processes.is_main:
        backend = "nccl" if nccl else "gloo"
        out.write_text(json.dumps({"two": two, "one": one, "backend": backend, "seconds": seconds}))
    processes.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
