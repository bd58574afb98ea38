"""A second device for machines that have only one: tensors that are elsewhere, called 'cuda', and meet no others.

Their numbers are kept by tensors on the processor. An operation on tensors here and there raises what it raises on a
graphics card, and so does taking such a tensor as an array. It works with PyTorch's own means of seeing every operation
(``torch.utils._python_dispatch``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
META = torch.device("meta")  # what stands for it inside of PyTorch, which would look for a real card
CPU = torch.device("cpu")
aten = torch.ops.aten
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
MADE_OF_NUMBERS = (torch.tensor, torch.as_tensor)


class Elsewhere(torch.Tensor):
    """A tensor on that device; ``numbers`` is the one on the processor."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, layout=numbers.layout, device=META,
        )  # type: ignore[attr-defined]  # fmt: skip
        made.numbers = numbers
        return made  # type: ignore[no-any-return]

    def __repr__(self, **more: Any) -> str:
        return f"Elsewhere({self.numbers})"

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        number = not isinstance(value, torch.Tensor)
        super().__setitem__(_index(index), torch.tensor(value, dtype=self.dtype).to(CUDA) if number else value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, kwargs or {})


def _index(index: Any) -> Any:
    """Lists of numbers as tensors: PyTorch would make them of nothing."""

    def one(part: Any) -> Any:
        return torch.tensor(list(part)).to(CUDA) if isinstance(part, list | range) else part

    return tuple(map(one, index)) if isinstance(index, tuple) else one(index)


def _here(value: Any) -> Any:
    return value.numbers if isinstance(value, Elsewhere) else value


def _do(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """An operation, done by the processor; its result is where a graphics card's would be."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    asked = kwargs.get("device")
    if func is aten.copy_.default:
        _here(args[0]).copy_(_here(args[1]))
        return args[0]
    if func in (aten._conj.default, aten._neg_view.default) and there:
        # Down here nothing looks at a tensor's mark of being conjugate.
        return Elsewhere((aten.conj_physical if func is aten._conj.default else aten.neg)(_here(args[0])))
    moves = func is aten._to_copy.default
    indexed = func in INDEXED and isinstance(args[0], Elsewhere)
    if there and not moves and not indexed:
        strangers = [t for t in tensors if not isinstance(t, Elsewhere) and t.ndim > 0]
        if strangers:
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    goes = asked.type == META.type if asked is not None else there
    more = dict(kwargs) | ({"device": CPU} if asked is not None else {})
    done = func(*tree_map(_here, args), **tree_map(_here, more))
    if func._schema.is_mutable:
        return kwargs.get("out", args[0]) if func._schema.returns else None
    return tree_map(lambda value: Elsewhere(value) if goes and isinstance(value, torch.Tensor) else value, done)


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # else PyTorch would start CUDA

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _do(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """The device's name, wherever it is an argument."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def one(value: Any) -> Any:
            named = isinstance(value, torch.device) and value.type == "cuda"
            return META if named or (isinstance(value, str) and value.startswith("cuda")) else value

        more = {key: one(value) for key, value in (kwargs or {}).items()}
        if func is torch.Tensor.tolist:
            return func(_here(args[0]))
        if func in MADE_OF_NUMBERS and more.get("device") is not None:
            device = more.pop("device")
            return func(*args, **more).to(device)
        return func(*map(one, args), **more)


@contextlib.contextmanager
def pretended(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is a graphics card."""
    with FakeTensorMode():  # which leaves behind that an operation there needs no card's guard
        torch.arange(2, device="cuda")
    known = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda device=None: (7, 0),
        "get_device_name": lambda device=None: "none",
        "synchronize": lambda device=None: None,
        "max_memory_allocated": lambda device=None: 0,
    }
    for name, answer in known.items():
        patch.setattr(torch.cuda, name, answer)
    patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    autocast = torch.autocast
    patch.setattr(torch, "autocast", lambda device, *args, enabled: autocast("cpu", *args, enabled=False))
    with _Names(), _Operations():
        yield
