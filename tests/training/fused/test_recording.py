"""What is recorded can be recorded, and replays do what plain steps do."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.helpers.fused import CASES, DAT, DROPOUT, LAMBDAS, Run, make_fused
from twotower.optimizers.schedulers import linear_warmup
from twotower.training.fused import proof, recording

WAITING = {  # operations that wait for the device, as a shape or a number of the host depends on it
    "nonzero",
    "nonzero_static",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "masked_select",
    "_local_scalar_dense",
    "equal",
    "repeat_interleave",
}


class Recordable(TorchDispatchMode):
    """Fails where a CUDA graph could not record an operation.

    ``meta`` stands for the GPU: its tensors have no data, so no operation can depend on them, and a
    tensor on the host is one that was left there. Only numbers may be on the host.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        assert name not in WAITING, name
        if name.startswith(("index", "_index_put")) and isinstance(args[1], list):
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            assert not masks, f"{name} with a mask"
        output = func(*args, **(kwargs or {}))
        tensors = tensors_of((args, kwargs, output))
        for tensor in tensors:
            assert tensor.is_meta or tensor.dim() == 0, f"{name}: {tensor.shape} on the host"
        if "copy" in name:
            assert len({tensor.device for tensor in tensors}) == 1, f"{name} between devices"
        return output


def to_meta(fused):
    """Replace all that a step reads, after caches are filled as plain steps fill them."""
    index = next(iter(fused.loaders()[0]))
    for place in range(len(fused.seeds)):
        fused.batch(place, index.position)

    def moved(tensor):
        if not isinstance(tensor, torch.Tensor):
            return tensor
        return tensor.detach().to("meta").requires_grad_(tensor.requires_grad)

    optimizer, first = fused.optimizer, fused.data[fused.seeds[0]]
    fused.device = torch.device("meta")
    fused.numbers = tree_map(moved, fused.numbers)
    fused.stack.buffers = tree_map(moved, fused.stack.buffers)
    fused.stack.parameters = tree_map(moved, fused.stack.parameters)
    optimizer.parameters = {name: fused.stack.parameters[name] for name in optimizer.parameters}
    optimizer.mean, optimizer.square = tree_map(moved, (optimizer.mean, optimizer.square))
    optimizer.num_steps = moved(optimizer.num_steps)
    optimizer._settings = []
    optimizer.refresh()
    pairs = first._train_pairs
    pairs.__dict__.update(tree_map(moved, pairs.__dict__))
    first.tables = tree_map(moved, first.tables)
    for data in fused.data.values():
        data.share_tables(first)
    return index.position.to("meta")


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        *((case, {}) for case in CASES),
        ("dat", {"clip": (0.5, "norm")}),
        ("dat", {"clip": (0.5, "value")}),
        ("dropout", {}),
    ],
)
def test_a_step_can_be_recorded(world, monkeypatch, case, settings):
    common, of_runs = CASES.get(case, ((*DAT, *DROPOUT), LAMBDAS))
    runs = [Run(world, seed, *common, *own) for seed, *own in of_runs]
    fused = make_fused(runs, **settings)
    position = to_meta(fused)
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: nullcontext())  # has no meta
    for name in ("tensor", "as_tensor", "from_numpy"):  # on meta they copy nothing from the host
        monkeypatch.delattr(torch, name)
    with Recordable():
        fused.learn([fused.batch(place, position) for place in range(len(fused.seeds))])


class Graph(TorchDispatchMode):
    """A CUDA graph on the CPU: notes operations with their tensors, and repeats them there."""

    def __init__(self):
        super().__init__()
        self.noted = []
        self.made = set()  # memory that was allocated inside
        self.before = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if changes(func):  # a recording changes nothing
            for tensor in tensors_of(args):
                if tensor.untyped_storage()._cdata not in self.made:
                    self.before.append((tensor, tensor.clone()))
        given = {tensor.untyped_storage()._cdata for tensor in tensors_of(args)}
        output = func(*args, **(kwargs or {}))
        self.made |= {t.untyped_storage()._cdata for t in tensors_of(output)} - given
        self.noted.append((func, args, kwargs or {}, output))
        return output

    def __exit__(self, *args):
        super().__exit__(*args)
        with torch.no_grad():
            for tensor, value in reversed(self.before):
                tensor.copy_(value)

    def replay(self):
        with torch.no_grad():
            for func, args, kwargs, output in self.noted:
                repeated = func(*args, **kwargs)
                for old, new in zip(tensors_of(output), tensors_of(repeated), strict=True):
                    if not new.is_set_to(old):
                        old.copy_(new)


def tensors_of(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def changes(func):
    infos = [argument.alias_info for argument in func._schema.arguments]
    return any(info is not None and info.is_write for info in infos)


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def fake_graphs(monkeypatch):
    """``torch.cuda`` as far as recordings use it."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, *args: graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_blas_handle", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


def train_with_scheduler(runs, **settings):
    """Four epochs in three stretches, with a learning rate that changes in each step."""
    fused = make_fused(runs, **settings)
    schedules = [linear_warmup(run.optimizer, None, 25) for run in runs]
    totals = []
    for first, last in ((0, 13), (13, 14), (14, 52)):
        if first == 14:
            for run in runs:
                run.optimizer.param_groups[0]["betas"] = (0.8, 0.99)
        rows = [[runs[seed].indices[step] for seed in fused.seeds] for step in range(first, last)]
        fused.train(rows, lambda: [schedule.step() for schedule in schedules])
        for schedule in schedules:
            schedule.step()
        totals += [fused.total, fused.mean_total, *fused.terms.values()]
    return fused, totals


@pytest.mark.parametrize("case", ["dat", "alignment over batches", "dropout"])
def test_replays_are_plain_steps(world, fake_graphs, case):
    common, of_runs = CASES.get(case, ((*DAT, *DROPOUT), LAMBDAS))
    plain, recorded = (
        [Run(world, seed, *common, *own) for seed, *own in of_runs] for _ in range(2)
    )
    _, expected = train_with_scheduler(plain)
    fused, totals = train_with_scheduler(recorded, record=True)
    assert len(fused.recorder.recordings) == 2  # full batches, and an epoch's last one
    for ours, theirs in zip(totals, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # rates are float32 there
    for one, other in zip(plain, recorded, strict=True):
        for name, weight in one.task.state_dict().items():
            ours = other.task.state_dict()[name]
            torch.testing.assert_close(ours, weight, rtol=0, atol=1e-5)


def test_replays_are_proved(world, fake_graphs, monkeypatch):
    runs = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    fused = make_fused(runs, record=True)
    assert proof.prove(fused) is None
    assert len(fused.recorder.recordings) == 1
    monkeypatch.setattr(recording.Recorder, "_replay", replay_unseeded)
    assert proof.prove(fused) is not None


def replay_unseeded(self, recording, position, seeds):
    recording.position.copy_(position)
    for graph in (*recording.batches, recording.learn):
        graph.replay()
    return recording.output


def test_recorded_draws_are_those_of_plain_steps(world, fake_graphs, monkeypatch):
    """Even where another draw would hardly change the weights."""
    runs = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    fused = make_fused(runs, record=True)
    monkeypatch.setattr(recording.Recorder, "_replay", replay_unseeded)
    monkeypatch.setattr(proof, "_tolerance", lambda fused: 10.0)
    assert proof.prove(fused) == "the recorded batch of seed 0 is another one"


def test_a_failed_recording_leaves_its_stream(world, fake_graphs, monkeypatch):
    class Failing(nullcontext):
        def __exit__(self, *args):
            raise RuntimeError("the capture was invalidated")

    current, streams = Stream(), []
    monkeypatch.setattr(torch.cuda, "graph", lambda *args: Failing())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    fused = make_fused([Run(world, 0, *DAT)], record=True)
    assert proof.prove(fused) == "a step fails: RuntimeError: the capture was invalidated"
    assert streams == [current]
