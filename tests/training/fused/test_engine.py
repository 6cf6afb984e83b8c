"""Runs trained in one pass end with the weights that each has when it is trained alone."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import make_data
from tests.helpers.composition import compose_derived
from twotower.errors import UserError
from twotower.run.build import build_part
from twotower.training.fused.engine import FusedRuns
from twotower.training.task import RetrievalTask

NUM_STEPS = 40  # more than an epoch of 13, whose last batch is smaller
SMALL = ("model.dim=6", "model.hidden_dims=[7]", "model.embedding_dim=6", "optimizer=adamw")
DAT = ("model=dat", *SMALL)
TRANSFORMER = ("model/history=transformer", "model.history.dropout=0", "model.history.num_layers=2")
DECAY = "optimizer.weight_decay=0.1"
LAMBDAS = (
    (0, "loss.lambda1=0.3", DECAY),
    (1, "loss.lambda3=0", "optimizer.lr=0.01", DECAY),
    (0, "loss.lambda1=0", "loss.lambda2=0", DECAY),
)
ADAM = ((0, "optimizer.lr=0.01"), (1, "+optimizer.betas=[0.8,0.99]"), (1, DECAY))
TEMPERATURES = (
    (0, "loss.task.temperature=0.2"),
    (1, "loss.task.temperature=0.5"),
    (0, "optimizer.lr=0.01"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data with two behaviours."""
    data = make_data(tmp_path_factory.mktemp("fused"), batch_size=32)
    data.setup()
    num = len(data.tables["interactions/item"])
    data.meta = {**data.meta, "behaviours": ["click", "purchase"]}
    data.tables["interactions/behaviour"] = (torch.arange(num) % 3 == 0).to(torch.uint8)
    data.schema = data.schema._replace(num_behaviours=2)
    return data


class Run:
    """A run of one setting, with the indices of all its steps."""

    def __init__(self, world, seed, *overrides):
        config = compose_derived(f"data.history_length={world.options.history_length}", *overrides)
        torch.manual_seed(seed)
        self.data = copy.copy(world)
        self.data.seed, self.data.negatives = seed, build_part(config, "negatives")
        model, loss = (build_part(config, part, schema=world.schema) for part in ("model", "loss"))
        self.task = RetrievalTask(model.double().train(), loss.double(), None, [], (), None)
        self.optimizer = build_part(config, "optimizer")(model.parameters())
        loader, self.indices = self.data.train_dataloader(), []
        while len(self.indices) < NUM_STEPS:
            self.indices += list(loader)

    def train(self, first=0, last=NUM_STEPS):
        self.data.fixed_shapes = False
        for index in self.indices[first:last]:
            output = self.task.step(self.data.train_batch(index))
            self.optimizer.zero_grad()
            output.total.backward()
            self.optimizer.step()
        return output

    def state(self):
        parts = {"weights": self.task.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(parts)

    def load(self, state):
        self.task.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])


def make_fused(runs):
    return FusedRuns(
        [run.task for run in runs], [run.data for run in runs], [run.optimizer for run in runs]
    )


def train_fused(runs, first=0, last=NUM_STEPS):
    fused = make_fused(runs)
    of_seed = {run.data.seed: run.indices for run in runs}
    for step in range(first, last):
        output = fused.step([of_seed[seed][step] for seed in fused.seeds])
    return output


def assert_equal(ours, theirs):
    assert ours["weights"].keys() == theirs["weights"].keys()
    for name, weight in theirs["weights"].items():
        if name != "loss.alignment.running.updates":
            torch.testing.assert_close(ours["weights"][name], weight, rtol=0, atol=1e-9)
    mine, other = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert mine.keys() == other.keys()
    for place, state in other.items():
        for key, value in state.items():
            torch.testing.assert_close(mine[place][key], value, rtol=0, atol=1e-9)


CASES = {
    "dat": (DAT, LAMBDAS),
    "mimic gradient alone": ((*DAT, "model.augment_gradient=mimic"), LAMBDAS),
    "adam": ((*DAT, "optimizer=adam"), LAMBDAS),
    "attention": ((*DAT, "model/history=attention"), LAMBDAS),
    "transformer": ((*DAT, *TRANSFORMER), LAMBDAS),
    "shared item table": (
        ("model=two_tower", "model.share_item_table=true", *TRANSFORMER, *SMALL),
        ADAM,
    ),
    "two_tower": (("model=two_tower", *SMALL), TEMPERATURES),
    "youtube_dnn": (("model=youtube_dnn", *SMALL), TEMPERATURES),
    "mind": (("model=mind", *SMALL), TEMPERATURES),
    "mvke": (
        (
            "model=mvke",
            "loss=multi_objective",
            "model.num_kernels=3",
            "model.objectives=[[0,1],[1,2]]",
            *SMALL,
        ),
        ((0, "loss.temperature=0.5"), *ADAM[1:]),
    ),
    "mf": (("model=mf", "model.dim=6", "loss/task=bpr", "negatives=uniform"), ADAM),
    "fm": (("model=fm", "model.dim=6"), TEMPERATURES),
    "alignment of the data's largest": (
        (*DAT, "loss.alignment.major=global", "loss.alignment.count=items"),
        LAMBDAS,
    ),
    "alignment over batches": (
        (*DAT, "loss.alignment.momentum=0.9", "loss.alignment.weighting=sqrt_n"),
        (LAMBDAS[0], (1, "loss.lambda3=0.5"), LAMBDAS[2]),
    ),
    "bce": ((*DAT, "loss/task=bce", "negatives=uniform"), LAMBDAS),
    "bce, no positives drawn": (
        (*DAT, "loss/task=bce", "negatives=uniform", "negatives.exclude_positives=true"),
        LAMBDAS,
    ),
    "full_softmax": ((*DAT, "loss/task=full_softmax", "negatives=corpus"), LAMBDAS),
    "in_batch_softmax": ((*DAT, "loss/task=in_batch_softmax", "negatives=in_batch"), LAMBDAS),
    "mixed": ((*DAT, "loss/task=in_batch_softmax", "negatives=mixed"), LAMBDAS),
    "sampled_softmax": ((*DAT, "loss/task=sampled_softmax", "negatives=uniform"), LAMBDAS),
    "popularity": ((*DAT, "negatives=popularity", "negatives.shared=false"), LAMBDAS),
    "mixed_popularity": (
        (*DAT, "negatives=mixed_popularity", "loss.task.correct_log_q=true"),
        LAMBDAS,
    ),
    "shared_uniform": (
        (*DAT, "negatives=shared_uniform", "negatives.exclude_positives=true"),
        LAMBDAS,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_run_ends_as_it_does_alone(world, case):
    common, settings = CASES[case]
    alone = [Run(world, seed, *common, *own) for seed, *own in settings]
    together = [Run(world, seed, *common, *own) for seed, *own in settings]
    outputs = [run.train() for run in alone]
    total, terms = train_fused(together)
    for place, (one, fused) in enumerate(zip(alone, together, strict=True)):
        assert_equal(fused.state(), one.state())
        assert total[place].item() == pytest.approx(outputs[place].total.item(), abs=1e-9)
        for name, value in outputs[place].terms.items():
            assert terms[name][place].item() == pytest.approx(value.item(), abs=1e-9)


def test_a_run_goes_on_alone_and_together(world):
    """Its state is that of an ordinary run: 13 steps alone, 13 in one pass, 14 alone."""
    alone = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    mixed = [Run(world, seed, *DAT, *own) for seed, *own in LAMBDAS]
    for one, run in zip(alone, mixed, strict=True):
        one.train()
        run.train(0, 13)
    train_fused(mixed, 13, 26)
    for one, run, (seed, *own) in zip(alone, mixed, LAMBDAS, strict=True):
        last = Run(world, seed, *DAT, *own)
        last.load(run.state())
        last.train(26)
        assert_equal(last.state(), one.state())


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model/history=gru", "model/history=gru cannot be trained in one pass"),
        ("optimizer=lazy_adam", "cannot be trained in one pass"),
    ],
)
def test_what_cannot_be_fused_is_refused(world, setting, reason):
    runs = [Run(world, seed, "model=dat", setting) for seed in (0, 1)]
    with pytest.raises(UserError, match=reason):
        train_fused(runs, 0, 1)


class Count(TorchDispatchMode):
    """Counts the operations that reach the kernels."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "case", ["dat", "transformer", "mind", "mvke", "fm", "mixed", "bce", "alignment over batches"]
)
def test_a_step_of_more_runs_has_no_more_operations(world, case):
    """An operation without a rule for batches would run once for each run."""
    common, settings = CASES[case]
    numbers = []
    for num_runs in (2, 5):
        own = [settings[0], *[settings[1]] * (num_runs - 1)]
        runs = [Run(world, 0, *common, *setting) for _, *setting in own]
        fused = make_fused(runs)
        batch = fused.batches([runs[0].indices[0]])
        with Count() as count:
            fused.losses(batch)[0].sum().backward()
            fused.optimizer.step()
        numbers.append(count.number)
    assert numbers[0] == numbers[1]


DROPOUT = (
    "model.dropout=0.2",
    "model/history=transformer",
    "model.id_dropout=0.2",
    "model.cold_ids=trained",
)


@pytest.mark.parametrize("drops", [False, True])
def test_each_run_draws_its_own_dropout(world, drops):
    runs = [Run(world, 0, *DAT, *(DROPOUT if drops else ())) for _ in range(2)]
    total, _ = train_fused(runs, 0, 5)
    assert torch.isfinite(total).all()
    assert (total[0] != total[1]).item() == drops
