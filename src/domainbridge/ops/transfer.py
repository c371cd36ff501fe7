"""Small values of a step, drawn on the CPU, on their way to the device."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["from_device", "rows_and_values_on", "to_device"]


def to_device(draws: Tensor, device: torch.device) -> Tensor:
    """An asynchronous copy. For a GPU from page-locked memory: the host waits for a copy from any other."""
    if device.type == "cuda" and torch.cuda.is_available():
        draws = draws.pin_memory()
    return draws.to(device, non_blocking=True)


def from_device(*values: Tensor) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """Asynchronous copies on the CPU, and a function that waits until their content is there.

    Work that is queued for a GPU after this call is not waited for.
    """
    copies = tuple(value.to("cpu", non_blocking=True) for value in values)
    if not any(value.device.type == "cuda" for value in values) or not torch.cuda.is_available():
        return copies, lambda: None
    # Of each device's queue, and not of the current device's: every thread has another current device, the first one.
    devices = dict.fromkeys(value.device for value in values if value.device.type == "cuda")
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return copies, wait


def rows_and_values_on(device: torch.device, rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Row numbers, int64 (n,), and values for each, float32 (n,), in one copy."""
    packed = to_device(torch.stack([rows.float(), *values]), device)  # whole numbers below 2 ** 24 are exact
    return packed[0].long(), *packed[1:]
