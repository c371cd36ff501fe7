"""CUDA without a GPU: tensors without content that say they are on a device ``cuda``, and a watch over operations.

Shapes, float types, devices and autocast are those of CUDA. Nothing is computed; whatever the host waits for raises.
Only forward passes and the loop around them run: autograd's engine needs a real device, so a backward pass is replaced
by gradients without content.
"""

import collections
import gc
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
Result = TypeVar("Result")
_CONVERSIONS = ("_to_copy", "copy_", "to.dtype")
_MIXED_BY_DESIGN = ("batch_norm", "cat", "where", "copy_", "_to_copy", "index_put", "scatter", "searchsorted")


class Seen(NamedTuple):
    """What a watch saw, see there."""

    operations: collections.Counter[str]
    copies: collections.Counter[tuple[str, bool, str]]
    faults: set[str]


class Watch(TorchDispatchMode):
    """Counts the operations on the device and notes what must not happen there.

    Attributes:
        operations: on the device, by name.
        copies: from or to the device, by (name, does not wait, place in the code).
        faults: operations of two devices or of two float types, with their place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: collections.Counter[str] = collections.Counter()
        self.copies: collections.Counter[tuple[str, bool, str]] = collections.Counter()
        self.faults: set[str] = set()

    @property
    def seen(self) -> Seen:
        """What was seen so far, as plain values."""
        return Seen(self.operations, self.copies, self.faults)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in tree_leaves((args, kwargs)))
        if not on_device and not any(isinstance(tensor, FakeTensor) for tensor in inputs):
            with _disable_current_modes():  # draws of a CPU generator are real
                return func(*args, **kwargs)
        # What was made from an array has content; on its way to the device it is replaced by a tensor without.
        args, kwargs = tree_map_only(torch.Tensor, _without_content, (args, kwargs))
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        returns = func._schema.returns
        if not (returns and returns[0].alias_info is not None and not returns[0].alias_info.is_write):  # no view
            self._note(str(func).removeprefix("aten."), inputs, outputs, kwargs, args)
        return result

    def _note(
        self, name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor], kwargs: dict[str, Any], args: Any
    ) -> None:
        devices = {tensor.device.type for tensor in (*inputs, *outputs)}
        if "cuda" not in devices or name.startswith("prim."):
            return
        self.operations[name] += 1
        if any(name.startswith(part) for part in _CONVERSIONS):
            if len(devices) > 1:
                given = args[2] if name.startswith("copy_") and len(args) > 2 else False
                self.copies[name, bool(kwargs.get("non_blocking", given)), _place()] += 1
            return
        sized = [tensor for tensor in inputs if tensor.dim() > 0]
        if len({tensor.device.type for tensor in sized}) > 1:
            self.faults.add(f"two devices: {name} at {_place()}")
        floats = {str(tensor.dtype) for tensor in sized if tensor.is_floating_point()}
        if len(floats) > 1 and not any(part in name for part in _MIXED_BY_DESIGN):
            self.faults.add(f"two float types {sorted(floats)}: {name} at {_place()}")


def _without_content(tensor: torch.Tensor) -> torch.Tensor:
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)


def _place() -> str:
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}domainbridge{os.sep}" in frame.filename]
    return f"{frames[-1].filename.rpartition('domainbridge' + os.sep)[2]}:{frames[-1].lineno}" if frames else "a test"


class _Autocast:
    """``torch.autocast`` for CUDA, which refuses where there is no GPU: the same state, set by hand."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        self.device_type, self.dtype, self.enabled = device_type, dtype, enabled

    def __enter__(self) -> None:
        kind = self.device_type
        self.before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        torch.set_autocast_enabled(kind, self.enabled)
        if self.dtype is not None:
            torch.set_autocast_dtype(kind, self.dtype)
        torch.autocast_increment_nesting()

    def __exit__(self, *_: object) -> None:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(self.device_type, self.before[0])
        torch.set_autocast_dtype(self.device_type, self.before[1])


def on_fake_cuda(work: Callable[[], Result]) -> Result:
    """The result of work for which the device ``cuda`` exists, and a backward pass does nothing.

    The work runs in a child process: torch sometimes crashes when many such tensors have come and gone in one process.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # A session of onnxruntime that another test left would wait in the child for threads that only this process has.
    gc.collect()
    child = os.fork()
    if child == 0:
        gc.freeze()
        try:
            with _fake_cuda():
                sender.send((work(), None))
        except BaseException:  # whatever it is, the parent shows it
            sender.send((None, traceback.format_exc()))
        finally:
            os._exit(0)
    sender.close()
    try:
        result, failure = receiver.recv()
    except EOFError:
        result, failure = None, "the child process crashed"
    os.waitpid(child, 0)
    if failure is not None:
        raise AssertionError(failure)
    return cast(Result, result)


@contextmanager
def _fake_cuda() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch, "autocast", _Autocast)
        patch.setattr(torch.backends.cudnn, "enabled", False)
        patch.setattr(torch.Tensor, "backward", lambda *_, **__: None)
        yield
