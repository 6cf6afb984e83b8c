"""Row-sparse optimizers against dense references in float64, on the rows that were touched."""

import numpy as np
import pytest
import torch

from tests.helpers.runs import SMALL
from twotower.errors import UserError
from twotower.layers.embedding_table import lookup, mean_lookup, table
from twotower.optimizers.row_sparse import LazyAdam, RowwiseAdagrad, check_clipping, clip_gradients

SETTINGS = {
    "lr": 0.1,
    "table_lr": None,
    "betas": [0.9, 0.99],
    "eps": 1e-8,
    "weight_decay": 0.0,
    "min_rows": 5,
}
INDEX = [
    torch.tensor([[1, 3], [3, 0]]),
    torch.tensor([[3, 4], [2, 0]]),
    torch.tensor([[1, 1], [4, 3]]),
]  # 0 is padding; row 5 never


def train(make, look=mean_lookup, steps=INDEX):
    """A table after some steps of a loss that is not linear, beside a dense vector."""
    torch.manual_seed(0)
    weight, dense = table(6, 3), torch.nn.Parameter(torch.ones(3))
    optimizer = make([weight, dense])
    for index in steps:
        optimizer.zero_grad()
        (look(index, weight) * dense).square().sum().backward()
        optimizer.step()
    return weight.detach(), dense.detach(), optimizer


def test_what_follows_a_step_follows_once():
    """Also after an AdamW was made: torch then calls the hooks of a step within AdamW's, too."""
    torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    optimizer = RowwiseAdagrad([table(6, 3), torch.nn.Parameter(torch.ones(3))], **SETTINGS)
    called, hooked = [], []
    optimizer.after_step = lambda: called.append(1)
    optimizer.register_step_post_hook(lambda *_: hooked.append(1))
    optimizer.step()
    assert len(called) == 1 < len(hooked)


@pytest.mark.parametrize("look", [mean_lookup, lookup])
def test_lazy_adam_is_torchs_sparse_adam_beside_adamw(look):
    found, dense, _ = train(lambda params: LazyAdam(params, **SETTINGS), look)

    class Both(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})
            params[0].row_sparse = True
            self.parts = (
                torch.optim.SparseAdam([params[0]], 0.1, (0.9, 0.99)),
                torch.optim.AdamW([params[1]], 0.1, (0.9, 0.99), weight_decay=0),
            )

        def step(self):
            for part in self.parts:
                part.step()

    expected, expected_dense, _ = train(Both, look)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(dense, expected_dense)


def test_lazy_adam_is_adam_where_every_row_is_in_every_batch():
    everything = [torch.arange(6).view(2, 3)] * 4
    found, dense, _ = train(
        lambda params: LazyAdam(params, **{**SETTINGS, "weight_decay": 0.2}), lookup, everything
    )
    adam = lambda params: torch.optim.AdamW(params, 0.1, (0.9, 0.99), weight_decay=0.2)  # noqa: E731
    expected, expected_dense, _ = train(adam, lookup, everything)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(dense, expected_dense)


def test_rowwise_adagrad_by_hand():
    """Row 1 has the gradient (3, 0, 4) twice: mean squares 25/3, then 50/3.

    Each step subtracts .1 / sqrt of that times the gradient.
    """
    weight = table(6, 3)
    start = weight.detach().clone()
    optimizer = RowwiseAdagrad([weight], **SETTINGS)
    for _ in range(2):
        optimizer.zero_grad()
        (lookup(torch.tensor([1]), weight) * torch.tensor([3.0, 0.0, 4.0])).sum().backward()
        optimizer.step()
    moved = 0.1 * (1 / np.sqrt(25 / 3) + 1 / np.sqrt(50 / 3)) * torch.tensor([3.0, 0.0, 4.0])
    torch.testing.assert_close(weight[1].detach(), (start[1] - moved).float())
    assert torch.equal(weight.detach()[[0, 2, 3, 4, 5]], start[[0, 2, 3, 4, 5]])
    assert optimizer.state[weight]["sum"].tolist() == pytest.approx([0, 50 / 3, 0, 0, 0, 0])


def test_rowwise_adagrad_is_its_dense_reference():
    """The reference knows every row's gradient, in NumPy; rows without one stay."""
    found, _, _ = train(lambda params: RowwiseAdagrad(params, **{**SETTINGS, "table_lr": 0.5}))
    torch.manual_seed(0)
    weight, dense = table(6, 3), torch.nn.Parameter(torch.ones(3))
    weight.row_sparse = False
    adamw, total = torch.optim.AdamW([dense], 0.1, (0.9, 0.99), weight_decay=0), np.zeros(6)
    for index in INDEX:
        weight.grad = None
        adamw.zero_grad()
        (mean_lookup(index, weight) * dense).square().sum().backward()
        gradient = weight.grad.double().numpy()
        total += (gradient**2).mean(1)
        with torch.no_grad():
            weight -= torch.from_numpy(0.5 * gradient / (np.sqrt(total) + 1e-8)[:, None]).float()
        adamw.step()
    torch.testing.assert_close(found, weight.detach())


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
def test_rows_outside_the_batch_and_small_tables(optimizer):
    torch.manual_seed(0)
    start = table(6, 3).detach()
    found, _, _ = train(lambda params: optimizer(params, **SETTINGS))
    assert torch.equal(found[[0, 5]], start[[0, 5]]) and (found[1:5] != start[1:5]).any(1).all()
    dense, _, _ = train(lambda params: optimizer(params, **{**SETTINGS, "min_rows": 7}))
    adamw, _, _ = train(lambda params: torch.optim.AdamW(params, 0.1, (0.9, 0.99), weight_decay=0))
    assert torch.equal(dense, adamw) and not torch.equal(found, adamw)


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
def test_optimizer_state_resumes(optimizer):
    whole, _, _ = train(lambda params: optimizer(params, **SETTINGS), steps=INDEX)
    torch.manual_seed(0)
    weight, dense = table(6, 3), torch.nn.Parameter(torch.ones(3))
    state = None
    for index in INDEX:
        made = optimizer([weight, dense], **SETTINGS)
        if state is not None:
            made.load_state_dict(state)
        made.zero_grad()
        (mean_lookup(index, weight) * dense).square().sum().backward()
        made.step()
        state = made.state_dict()
    torch.testing.assert_close(weight.detach(), whole)


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
def test_table_lr_is_the_learning_rate_of_tables(optimizer):
    """Where that of the dense part is 0, too."""
    rates = {"lr": 0, "table_lr": 0.1}
    found, dense, made = train(lambda params: optimizer(params, **{**SETTINGS, **rates}))
    same, moved, _ = train(
        lambda params: optimizer(params, **{**SETTINGS, **rates, "lr": 0.1}), steps=INDEX[:1]
    )
    assert torch.equal(dense, torch.ones(3)) and not torch.equal(moved, dense)
    still, _, _ = train(lambda params: optimizer(params, **SETTINGS), steps=[])
    assert (found[1:5] != still[1:5]).any(1).all()
    first, _, _ = train(lambda params: optimizer(params, **{**SETTINGS, **rates}), steps=INDEX[:1])
    assert torch.equal(first, same)
    none, _, _ = train(lambda params: optimizer(params, **{**SETTINGS, "table_lr": 0}))
    assert torch.equal(none, still)
    for group in made.param_groups:
        group["lr"] *= 0.5  # as a scheduler does
    assert [group["lr"] for group in made.param_groups] == [0, 0.05]


@pytest.mark.parametrize(("algorithm", "value"), [("norm", 0.5), ("norm", 100.0), ("value", 0.1)])
def test_row_sparse_gradients_are_clipped_as_dense_ones(algorithm, value):
    gradients = []
    for row_sparse in (True, False):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(6, 3, dtype=torch.float64))
        other = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        unused = torch.nn.Parameter(torch.ones(2))
        weight.row_sparse = row_sparse
        for index in INDEX:  # accumulated, so that a row stands several times
            (lookup(index, weight) * other).square().sum().backward()
        clip_gradients([weight, other, unused], value, algorithm)
        assert weight.grad.is_sparse == row_sparse and unused.grad is None
        gradients.append((weight.grad.to_dense(), other.grad))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)
    largest = torch.cat([part.flatten() for part in gradients[0]])
    if value < 100:
        size = largest.norm() if algorithm == "norm" else largest.abs().max()
        assert size.item() == pytest.approx(value)


def test_impossible_clipping_is_refused():
    rows, dense = LazyAdam([table(6, 3)], **SETTINGS), torch.optim.AdamW([table(6, 3)], fused=True)
    with pytest.raises(UserError, match="trainer.gradient_clip_val .* optimizer=adamw"):
        check_clipping(rows, 2, "32-true")
    with pytest.raises(UserError, match="trainer.precision=16-mixed .* optimizer.fused=false"):
        check_clipping(dense, 1, "16-mixed")
    check_clipping(rows, 1, "16-mixed")
    check_clipping(dense, 2, "32-true")


def test_impossible_settings_are_refused():
    for name in ("lr", "table_lr", "min_rows"):
        with pytest.raises(UserError, match=rf"optimizer\.{name}"):
            LazyAdam([table(6, 3)], **{**SETTINGS, name: -1})


@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        ("lazy_adam", "dat"),
        ("rowwise_adagrad", "mf"),
        *(
            pytest.param("lazy_adam", name, marks=pytest.mark.slow)
            for name in ("two_tower", "mf", "mvke")
        ),
        *(
            pytest.param("rowwise_adagrad", name, marks=pytest.mark.slow)
            for name in ("dat", "two_tower", "mvke")
        ),
    ],
)
def test_models_train_their_tables_by_rows(script, optimizer, model):
    chosen = (
        f"model={model}",
        f"optimizer={optimizer}",
        "optimizer.min_rows=50",
        "trainer.max_epochs=1",
    )
    run = script("train", *SMALL, *chosen, "hydra.run.dir=run")
    assert run.returncode == 0, run.stderr
    state = torch.load(script.folder / "run/checkpoints/last.ckpt", weights_only=True)[
        "optimizer_states"
    ][0]["state"]
    shapes = [{name: tuple(value.shape) for name, value in one.items()} for one in state.values()]
    if optimizer == "rowwise_adagrad":
        assert sum("sum" in shape for shape in shapes) >= 2
    else:
        assert all(set(shape) == {"step", "exp_avg", "exp_avg_sq"} for shape in shapes)


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad])
def test_a_gradient_scaler_changes_nothing(optimizer):
    """Gradients are unscaled before rows are updated; a step that overflows is skipped."""

    def run(scaler):
        torch.manual_seed(0)
        weight, dense = table(6, 3), torch.nn.Parameter(torch.ones(3))
        rows = optimizer([weight, dense], **SETTINGS)
        for index in INDEX:
            rows.zero_grad()
            scaler.scale((lookup(index, weight) * dense).square().sum()).backward()
            scaler.step(rows)
            scaler.update()
        return weight.detach().clone(), dense.detach().clone(), (weight, dense, rows)

    plain, scaled = (
        run(torch.amp.GradScaler("cpu", enabled=False)),
        run(scaler := torch.amp.GradScaler("cpu", init_scale=1024.0)),
    )
    assert torch.allclose(plain[0], scaled[0], rtol=1e-5) and torch.allclose(
        plain[1], scaled[1], rtol=1e-5
    )
    weight, dense, rows = scaled[2]
    rows.zero_grad()
    scaler.scale((lookup(INDEX[0], weight) * dense).sum() * float("inf")).backward()
    scaler.step(rows)
    scaler.update()
    assert torch.equal(weight, scaled[0]) and torch.equal(dense, scaled[1])


@pytest.mark.parametrize("betas", [[], [0.9], [0.9, 0.99, 0.999]])
def test_betas_are_two(betas):
    with pytest.raises(UserError, match="optimizer.betas must be two numbers"):
        LazyAdam([table(6, 3)], **{**SETTINGS, "betas": betas})
