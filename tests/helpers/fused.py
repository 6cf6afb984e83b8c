"""Runs to be trained in one pass, and the same runs trained alone."""

import copy
from contextlib import nullcontext

import torch

from tests.conftest import make_data
from tests.helpers.composition import compose_derived
from twotower.optimizers.row_sparse import clip_gradients
from twotower.run.build import build_part
from twotower.training.fused.engine import FusedRuns
from twotower.training.task import RetrievalTask

NUM_STEPS = 40  # more than an epoch of 13, whose last batch is smaller
SMALL = ("model.dim=6", "model.hidden_dims=[7]", "model.embedding_dim=6", "optimizer=adamw")
DAT = ("model=dat", *SMALL)
TRANSFORMER = ("model/history=transformer", "model.history.dropout=0", "model.history.num_layers=2")
POST = (
    *("model.history.block=post", "model.history.activation=gelu"),
    *("model.history.network_ratio=4", "model.history.input_scale=layer_norm"),
)
SEQUENCES = "data.positives=sequences"
HSTU = ("model/history=hstu", "model.history.dropout=0", "model.history.times=true")
DECAY = "optimizer.weight_decay=0.1"
LAMBDAS = (
    (0, "loss.lambda1=0.3", DECAY),
    (1, "loss.lambda3=0", "optimizer.lr=0.01", DECAY),
    (0, "loss.lambda1=0", "loss.lambda2=0", DECAY),
)
PLACEBO = (*LAMBDAS[:2], (0, "loss.lambda1=0", DECAY))  # it needs a mimic loss
WITHOUT_MIMIC = ("loss.lambda1=0", "loss.lambda2=0")
NO_MIMIC = ((0, "loss.lambda3=0.3", DECAY), (1, "loss.lambda3=0", "optimizer.lr=0.01"))
ADAM = ((0, "optimizer.lr=0.01"), (1, "+optimizer.betas=[0.8,0.99]"), (1, DECAY))
TEMPERATURES = (
    (0, "loss.task.temperature=0.2"),
    (1, "loss.task.temperature=0.5"),
    (0, "optimizer.lr=0.01"),
)

DROPOUT = (
    "model.dropout=0.2",
    "model/history=transformer",
    "model.id_dropout=0.2",
    "model.cold_ids=trained",
)


def make_world(folder):
    """Data with two behaviours."""
    data = make_data(folder, batch_size=32, history_times=True)
    data.setup()
    num = len(data.tables["interactions/item"])
    data.meta = {**data.meta, "behaviours": ["click", "purchase"]}
    data.tables["interactions/behaviour"] = (torch.arange(num) % 3 == 0).to(torch.uint8)
    data.schema = data.schema._replace(num_behaviours=2)
    return data


class Run:
    """A run of one setting, with the indices of all its steps."""

    def __init__(self, world, seed, *overrides, dtype=torch.float64, device="cpu"):
        config = compose_derived(f"data.history_length={world.options.history_length}", *overrides)
        torch.manual_seed(seed)
        self.data = copy.copy(world)
        self.data.seed, self.data.negatives = seed, build_part(config, "negatives")
        self.data.positives = config.data.positives
        model, loss = (build_part(config, part, schema=world.schema) for part in ("model", "loss"))
        model, loss = model.to(device, dtype).train(), loss.to(device, dtype)
        self.device = device
        self.task = RetrievalTask(model, loss, None, [], (), None)
        self.optimizer = build_part(config, "optimizer")(model.parameters())
        loader, self.indices = self.data.train_dataloader(), []
        while len(self.indices) < NUM_STEPS:
            self.indices += list(loader)

    def train(self, first=0, last=NUM_STEPS, context=nullcontext, clip=None, schedule=None):
        self.data.fixed_shapes = False
        for index in self.indices[first:last]:
            index = index._replace(position=index.position.to(self.device))
            batch = self.data.train_batch(index)
            with context():
                output = self.task.step(batch)
            self.optimizer.zero_grad()
            output.total.backward()
            if clip is not None:
                clip_gradients(self.task.model.parameters(), *clip)
            self.optimizer.step()
            if schedule is not None:
                schedule.step()
        return output

    def state(self):
        parts = {"weights": self.task.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(parts)

    def load(self, state):
        self.task.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])


def make_fused(runs, **settings):
    parts = zip(*((run.task, run.data, run.optimizer) for run in runs), strict=True)
    return FusedRuns(*parts, **settings)


def train_fused(runs, first=0, last=NUM_STEPS, after_step=None, **settings):
    fused = make_fused(runs, **settings)
    of_seed = {run.data.seed: run.indices for run in runs}
    rows = [[of_seed[seed][step] for seed in fused.seeds] for step in range(first, last)]
    fused.train(rows, after_step)
    return fused.total, fused.terms


def assert_equal(ours, theirs, atol=1e-9):
    assert ours["weights"].keys() == theirs["weights"].keys()
    for name, weight in theirs["weights"].items():
        if name != "loss.alignment.running.updates":
            torch.testing.assert_close(ours["weights"][name], weight, rtol=0, atol=atol)
    mine, other = ours["optimizer"]["state"], theirs["optimizer"]["state"]
    assert mine.keys() == other.keys()
    for place, state in other.items():
        for key, value in state.items():
            # torch's own optimizer counts steps on the host, a recorded one on the device
            close = {"rtol": 0, "atol": atol, "check_device": False}
            torch.testing.assert_close(mine[place][key], value, **close)


CASES = {
    "dat": (DAT, LAMBDAS),
    "mimic gradient alone": ((*DAT, "model.augment_gradient=mimic"), LAMBDAS),
    "shuffled targets": ((*DAT, "loss.mimic_target=shuffled"), PLACEBO),
    "mean targets": ((*DAT, "loss.mimic_target=mean"), PLACEBO),
    "running means": ((*DAT, "model.augment_gradient=none", *WITHOUT_MIMIC), NO_MIMIC),
    "adam": ((*DAT, "optimizer=adam"), LAMBDAS),
    "attention": ((*DAT, "model/history=attention"), LAMBDAS),
    "transformer": ((*DAT, *TRANSFORMER), LAMBDAS),
    "transformer, post": (
        (*DAT, *TRANSFORMER, *POST, "model.history.positions=relative"),
        LAMBDAS,
    ),
    "transformer, from the start": ((*DAT, *TRANSFORMER, "model.history.positions=start"), LAMBDAS),
    "bsarec": (
        (*DAT, "model/history=bsarec", "model.history.dropout=0", "model.history.c=2"),
        LAMBDAS,
    ),
    "hstu": ((*DAT, *HSTU), LAMBDAS),
    "ligr": ((*DAT, "model/history=ligr", "model.history.dropout=0"), LAMBDAS),
    "sequences, mean": ((*DAT, SEQUENCES), LAMBDAS),
    "sequences, transformer": ((*DAT, *TRANSFORMER, SEQUENCES), LAMBDAS),
    "sequences, shuffled targets": (
        (*DAT, *TRANSFORMER, SEQUENCES, "loss.mimic_target=shuffled"),
        PLACEBO,
    ),
    "sequences, running means": (
        (*DAT, *TRANSFORMER, SEQUENCES, "model.augment_gradient=none", *WITHOUT_MIMIC),
        NO_MIMIC,
    ),
    "sequences, bsarec": (
        (*DAT, "model/history=bsarec", "model.history.dropout=0", SEQUENCES),
        LAMBDAS,
    ),
    "sequences, hstu": (
        (*DAT, *HSTU, SEQUENCES),
        LAMBDAS,
    ),
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
    "gbce": ((*DAT, "loss/task=gbce", "negatives=uniform"), LAMBDAS),
    "bce": ((*DAT, "loss/task=bce", "negatives=uniform"), LAMBDAS),
    "bce, no positives drawn": (
        (*DAT, "loss/task=bce", "negatives=uniform", "negatives.exclude_positives=true"),
        LAMBDAS,
    ),
    "full_softmax": ((*DAT, "loss/task=full_softmax", "negatives=corpus"), LAMBDAS),
    "full_softmax in chunks": (
        (*DAT, "loss/task=full_softmax", "negatives=corpus", "loss.task.chunk=5"),
        LAMBDAS,
    ),
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
