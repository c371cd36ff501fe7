"""A lack of memory as one message; without torch, so that exported files run where torch is missing."""

import contextlib
import re
from collections.abc import Iterator

from domainbridge.errors import TrainingError

__all__ = ["EVALUATION_ADVICE", "enough_memory"]

_TRAINING_ADVICE = (
    "`domainbridge plan` counts what a step needs and names keys that make it smaller, such as "
    "training.activation_checkpointing=true, training.precision=bfloat16 or training.gradient_accumulation_steps=2"
)
EVALUATION_ADVICE = (
    "Smaller pieces need less: sliding windows (--slide; in a recipe evaluation.mode=slide, with the size "
    "evaluation.window), no mirrored image (evaluation.flip=false), no scales above 1 (evaluation.scales). On a GPU, "
    "--device cpu takes the machine's memory"
)
_SHORT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
)
"""What torch's allocator for the CPU, CUDA and NCCL, cuDNN and cuBLAS say, each with an error of its own. The last one
is torch's where no algorithm of cuDNN gets its work space.
"""
_DETAILS = " Of the allocated memory"
"""Where CUDA's message goes on with numbers about torch's allocator."""
_PLACE = re.compile(r"^\[enforce fail at [^\]]*\] (err == 0\. )?")
"""What the CPU's message begins with."""


@contextlib.contextmanager
def enough_memory(what: str, advice: str = _TRAINING_ADVICE) -> Iterator[None]:
    """Turn a lack of memory inside the block into one message.

    Args:
        what: what is done inside the block.
        advice: what makes it smaller; sentences.

    Raises:
        TrainingError: the work does not fit into the memory of the device.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not short and not any(text in str(error) for text in _SHORT_OF_MEMORY):
            raise
        raise TrainingError(
            f"{what} does not fit into this device's memory{_reason(error)}; what was saved before is kept. {advice}"
        ) from error


def _reason(error: BaseException) -> str:
    """The device's own words: how much was asked for, what is free, which other programs use it."""
    first = (str(error).splitlines() or [""])[0].partition(_DETAILS)[0]
    first = _PLACE.sub("", first).strip().rstrip(".")
    return f" ({first})" if first else ""
