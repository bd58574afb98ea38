"""Every solver as on a graphics card, where there is none: what is on which device, who waits for whom, which numbers.

PyTorch's ``FakeTensorMode`` cannot do this here: without CUDA built in, a fake CUDA tensor can neither be indexed ("not
linked with support for cuda devices") nor have gradients, and it has no values for a decision to be taken by. So the
real mathematics run on the processor, on tensors that say that they are on a card, and :class:`Card` looks at every
call that PyTorch gets from Python. It refuses to mix devices, and it notes what on a real card would make the processor
wait until all that was asked for is done ("waits"):

- reading values: ``float``, ``bool``, ``int``, ``.item()``, ``.tolist()``, ``.cpu()``, ``.to("cpu")``, ``.numpy()``;
- results whose size is not known beforehand: ``nonzero``, and reading or writing by a mask (but for writing a number);
- copies from ordinary memory: ``torch.tensor(…, device="cuda")``, ``.to("cuda")``, a list or a CPU tensor as an index.
  Those from pinned memory that say ``non_blocking`` do not count.

What PyTorch calls inside of itself is seen one floor below, by :class:`Below`: reads of single values, and numbers that
have become twice as wide as they should be. Launches and their times are seen on a real card only (tests/test_cuda.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fpmtools import engine, problem, registry, testing
from fpmtools.dataset import Dataset
from fpmtools.options import make_options
from fpmtools.problem import Problem, prepare
from fpmtools.pupil import Pupil
from fpmtools.transfer import put, take

CARD, HOST = torch.device("cuda"), torch.device("cpu")
READS = {"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "__index__", "__contains__"}
READS |= {"nonzero", "argwhere", "masked_select", "unique", "bincount", "equal", "allclose", "is_nonzero"}
FROM_HOST = {"tensor", "as_tensor", "asarray"}
SEVERAL = 64  # numbers: fewer may be double, as the coefficients of a pupil are


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """Those among them, and in lists and tuples."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


class OnCard(torch.Tensor):
    """Numbers in ordinary memory that say to be on a card."""

    device = property(lambda self: CARD)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]


class Card(TorchFunctionMode):
    """A card that is not there, see above. ``waits``: the names of the calls that would have waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func.__name__
        if name == "pin_memory":
            copy = args[0].clone()
            copy.pinned = True
            return copy
        if name in ("to", "cpu", "cuda") and isinstance(args[0], torch.Tensor):
            return self._moved(func, name, args, kwargs)
        tensors = tensors_in((*args, *kwargs.values()))
        here = [isinstance(tensor, OnCard) for tensor in tensors]
        if name == "_has_compatible_shallow_copy_type" and any(here) and not all(here):  # asked by ``Module.to``
            return False
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = HOST
            if name in FROM_HOST and not any(here):
                self.waits.append(name)
            return func(*args, **kwargs).as_subclass(OnCard)
        if any(here) and name not in ("__get__", "__set__", "__setattr__"):
            self._look(name, args, tensors)
        found = func(*args, **kwargs)
        if name in ("numpy", "__array__"):
            return np.array(found)
        # What backward has left is a plain tensor.
        return (
            found.as_subclass(OnCard) if name == "__get__" and all(here) and isinstance(found, torch.Tensor) else found
        )

    def _look(self, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
        if name in READS or (name == "where" and len(args) == 1):
            self.waits.append(name)
        elif name in ("__getitem__", "__setitem__"):
            self._index(name, args)
        elif name == "copy_":
            self.waits += [name] if len({type(each) is OnCard for each in tensors}) > 1 else []
        else:
            strangers = [tuple(each.shape) for each in tensors if each.ndim and not isinstance(each, OnCard)]
            assert not strangers, f"{name}: some tensors are on the card, and those of shape {strangers} are not"

    def _index(self, name: str, args: Any) -> None:
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        for part in parts:
            if isinstance(part, OnCard):
                number = name == "__setitem__" and not (isinstance(args[2], torch.Tensor) and args[2].ndim)
                self.waits += [f"{name} by a mask"] if part.dtype == torch.bool and not number else []
            elif isinstance(part, list | np.ndarray | torch.Tensor):
                self.waits.append(f"{name} by the host's numbers")
        if name == "__setitem__" and isinstance(args[2], torch.Tensor) and args[2].ndim:
            assert isinstance(args[2], OnCard), "what is not on the card is written into what is"

    def _moved(self, func: Callable[..., Any], name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """``.to``, ``.cpu`` and ``.cuda``; without a device only the type changes."""
        source, *rest = args
        words = [*rest, *kwargs.values()]
        devices = [torch.device(word) for word in words if isinstance(word, str | torch.device)]
        devices += [word.device for word in words if isinstance(word, torch.Tensor)]
        types = [word.dtype if isinstance(word, torch.Tensor) else word for word in words]
        dtype = next((each for each in types if isinstance(each, torch.dtype)), source.dtype)
        there = {"cpu": HOST, "cuda": CARD}.get(name, devices[0] if devices else source.device)
        found = source.to(dtype)
        if there.type == source.device.type:
            return found
        queued = there.type == "cuda" and kwargs.get("non_blocking") and getattr(source, "pinned", False)
        self.waits += [] if queued else [name]
        return found.clone().as_subclass(OnCard if there.type == "cuda" else torch.Tensor)


class Below(TorchDispatchMode):
    """What PyTorch's own code does. ``reads``: values that it looks at; ``wide``: results in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.wide: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = str(func)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.reads.append(name)
        for each in tensors_in((found,)):
            if each.dtype in (torch.float64, torch.complex128) and each.numel() > SEVERAL:
                self.wide.add(name)
        return found


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Where PyTorch is asked whether there is one, the answer is yes."""
    monkeypatch.setattr(problem, "choose_device", torch.device)
    return Card()


def full() -> Dataset:
    """All that a forward model can have at once, but for patterns."""
    data = testing.small_dataset()
    images = data.intensities.copy()
    images[:, [5, 14], [7, 20]] = 0
    count = len(data.na)
    background, gain = np.full(count, 0.01 * float(images.mean())), 1 + 0.1 * np.sin(np.arange(count))
    pupil = Pupil(np.array([0, 0, 0, 0.3, 0.2, 0.1]), softness=0.15)
    return data.with_images(images).with_calibration(gain=gain, background=background, pupil=pupil)


DATA: dict[str, tuple[Callable[[], Dataset], tuple[float, ...]]] = {
    "one plane": (testing.small_dataset, (1.0,)),
    "several planes": (full, (-2.0, 0.0, 2.0)),
    "patterns": (testing.paired_dataset, (-2.0, 2.0)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ap": {"sweeps": 11, "halve_below": 0.01},
    "adam": {"sweeps": 2, "start": 2},
    "inr": {"steps": 6, "features": 8, "mixed_precision": "off"},
    "lowrank": {"steps": 6, "terms": 8},
    "epry": {"sweeps": 2, "halve_from": 1, "pupil_from": 0},
    "mpie": {"sweeps": 2, "every": 7},
    "fd": {"sweeps": 2},
    "admm": {"sweeps": 3},
    "lbfgs": {"sweeps": 6, "start": 2},
}
# Waits of a step, at most, by what it does; "step" is within a sweep, "turn" goes from LED by LED to all together.
WAITS = {
    "ap": {"end": 4, "turn": 10, "joint end": 7, "last": 8},  # the prior is looked at and planes have settled, at once
    "adam": {"last": 3},
    "inr": {},
    "lowrank": {},
    "epry": {"end": 2, "last": 2},
    "mpie": {"end": 1, "last": 1},
    "fd": {"last": 3},
    "admm": {"end": 1, "last": 1},
    "lbfgs": {"end": 9, "last": 9},
}


def prepared(solver: Any, what: str, device: str) -> Problem:
    """The forward model works in batches of two images, and a step of many LEDs takes four of these."""
    make, z_um = DATA[what]
    made = prepare(make(), solver, z_um=z_um, device=device)
    forward = made.forward
    forward.batch_samples = 2 * forward.image_shape[0] * forward.image_shape[1] * len(z_um) * forward.fields_per_image
    return made


def phase(before: Any, state: Any) -> str:
    """Of the step that was: within a sweep or its end, of all LEDs together or not, or the turn from one to other."""
    joint = getattr(state, "joint", None)
    if joint is not None and before is None:
        return "turn"
    return ("joint " if before is not None else "") + ("end" if getattr(state, "at", 1) == 0 else "step")


def run(solver: Any, made: Problem, card: Card | None = None) -> tuple[list[float], dict[str, int]]:
    """The losses of all steps; the most waits of a step, by phase."""
    state, losses = solver.start(made), list[torch.Tensor]()
    most, done = dict[str, int](), False
    while not done:
        before, waits = getattr(state, "joint", None), len(card.waits) if card else 0
        with Below() as below:
            progress = solver.step(state)
        losses, done = [*losses, torch.as_tensor(progress.loss)], progress.done
        if card:
            here, count = "last" if done else phase(before, state), len(card.waits) - waits
            most[here] = max(most.get(here, 0), count)
            if here.endswith("step"):
                assert (below.reads, below.wide) == ([], set()), here
    return [float(loss) for loss in losses], most


@pytest.mark.parametrize("what", DATA)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_card_is_waited_for_only_where_a_decision_is_taken(name: str, what: str, card: Card) -> None:
    cls = registry.solver_class(name)
    solver = cls(make_options(cls, OPTIONS[name]))
    with card:
        losses, most = run(solver, prepared(solver, what, "cuda"), card)
    seen = {"step", "end", "turn", "joint step", "joint end"} if name == "ap" else {"step", "last"}
    assert seen <= set(most)
    assert all(count <= WAITS[name].get(here, 0) for here, count in most.items()), most
    assert losses == pytest.approx(run(solver, prepared(solver, what, "cpu"))[0], rel=1e-3)


def test_every_solver_that_claims_a_card_is_here() -> None:
    assert {found.record.name for found in registry.solvers() if "cuda" in found.record.capabilities} == set(OPTIONS)


def test_the_loop_waits_for_a_card_when_it_reports_and_not_in_every_step(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REPORT_EVERY_S", 1e9)
    monkeypatch.setattr(engine, "_synchronise", lambda device: None)  # at the first and the last step
    cls, waits = registry.solver_class("adam"), []
    for sweeps in (9, 12):
        with card:
            solver = cls(make_options(cls, {"sweeps": sweeps, "start": 1}))
            made, before = prepare(testing.small_dataset((8, 10)), z_um=0.0, device="cuda"), len(card.waits)
            assert engine.solve(made, solver).steps == 4 * sweeps > engine.RECENT_STEPS
        waits.append(len(card.waits) - before)
    assert waits[0] == waits[1]


def test_what_is_taken_is_what_an_index_gives() -> None:
    values = torch.arange(60.0).reshape(3, 4, 5)
    for chosen in ([2], [1, 2], range(3), [2, 0], [1, 1], [0, 2]):
        assert torch.equal(take(values, chosen), values[list(chosen)])
        assert torch.equal(take(values, chosen, 1), values[:, list(chosen)])
    assert take(values, None) is values
    assert take(values, [1, 2]).data_ptr() == values[1].data_ptr(), "neighbours are a view"


@pytest.mark.parametrize(
    ("use", "waits"),
    [
        (lambda x, host: float(x.sum()), 1),
        (lambda x, host: x.cpu().numpy(), 1),
        (lambda x, host: x.to("cpu"), 1),
        (lambda x, host: host.to("cuda"), 1),
        (lambda x, host: torch.tensor([1, 2], device="cuda"), 1),
        (lambda x, host: host.pin_memory().to("cuda", non_blocking=True), 0),
        (lambda x, host: host.to("cuda", non_blocking=True), 1),
        (lambda x, host: x[[0, 1]], 1),
        (lambda x, host: x[x > 0], 1),
        (lambda x, host: x.__setitem__(x > 0, 0), 0),
        (lambda x, host: x.__setitem__(x > 0, x[:3] + 1), 1),
        (lambda x, host: x[torch.tensor([0, 1])], 1),
        (lambda x, host: x[1:, None] * 2 + x[0], 0),
        (lambda x, host: (x > 0).nonzero(), 1),
        (lambda x, host: bool((x > 0).any()), 1),
        (lambda x, host: x.copy_(host), 1),
        (lambda x, host: take(x, [2, 0]), 0),
        (lambda x, host: put([1.0, 2.0], x.device, x.dtype) + x[:2], 0),
    ],
)  # fmt: skip
def test_the_card_that_is_not_there_is_waited_for_as_a_real_one(use: Callable[..., Any], waits: int) -> None:
    with Card() as card:
        x = torch.tensor([0.0, 1.0, 2.0, 3.0], device="cuda")
        assert x.device.type == "cuda"
        card.waits.clear()
        use(x, torch.ones(4))
        assert len(card.waits) == waits, card.waits


def test_the_card_that_is_not_there_does_not_mix_with_the_host() -> None:
    with Card():
        x, host = torch.zeros(4, device="cuda"), torch.ones(4)
        for wrong in (lambda: x + host, lambda: torch.stack([x, host]), lambda: x.__setitem__(slice(0, 4), host)):
            with pytest.raises(AssertionError, match="on the card"):
                wrong()
        assert (x + torch.ones(())).device.type == "cuda", "a single number may come from anywhere"


def test_double_precision_is_seen() -> None:
    with Below() as below:
        torch.zeros(100) * torch.ones(100, dtype=torch.float64)
        torch.ones(3).sum().item()
    assert below.reads
    assert below.wide == {"aten.ones.default", "aten.mul.Tensor"}
