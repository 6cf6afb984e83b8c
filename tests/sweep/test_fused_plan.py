"""Which runs of a sweep are trained in one pass, and what a plan says of them."""

import itertools

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.composition import compose_train
from twotower.sweep import fused_plan, tables
from twotower.sweep.fused_plan import Pass, plan, settings_of, shape, split, why_alone
from twotower.sweep.plan import Run
from twotower.training.fused import engine

OWN_LOSS = "loss.task._target_=mylab.losses.Mine"


def jobs(**varied):
    """Overrides of all combinations, the first key changing slowest, as in a sweep."""
    keys = [key.replace("__", ".") for key in varied]
    for values in itertools.product(*(str(value).split(",") for value in varied.values())):
        yield [f"{key}={value}" for key, value in zip(keys, values, strict=True)]


def passes_of(overrides, *fixed, limit=None):
    configs = [compose_train(*fixed, *own) for own in overrides]
    return plan(configs, lambda group: limit)


def sizes(passes):
    return [len(one.jobs) for one in passes]


def params(name):
    text = yaml.safe_load((ROOT / "conf" / "sweep" / f"{name}.yaml").read_text())
    return text["hydra"]["sweeper"]["params"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lambdas", [81]),
        ("seeds", [5]),
        ("ablation", [3, 12, 3, 3]),  # two_tower; four variants that differ in weights alone
        ("augment_dim", [3] * 10),
        ("baselines", [3] * 6 + [1] * 3),  # ials is fitted in closed form
    ],
)
def test_the_passes_of_each_sweep(name, expected):
    passes = passes_of(jobs(**params(name)))
    assert sorted(sizes(passes), reverse=True) == sorted(expected, reverse=True)
    assert sorted(job for one in passes for job in one.jobs) == list(range(sum(expected)))


def test_trials_of_a_search_with_other_thresholds_share_a_pass():
    thresholds = [[], *([f"callbacks.pruning.thresholds=[null,{value}]"] for value in (0.1, 0.2))]
    assert sizes(passes_of(thresholds, "sweep=search")) == [3]


def test_variants_that_differ_in_weights_alone_share_a_pass():
    names = params("ablation")["variant"].split(",")
    passes = passes_of(jobs(seed="0,1", variant=",".join(names)))
    (largest,) = [one for one in passes if len(one.jobs) > 2]
    shared = {names[job % len(names)] for job in largest.jobs}
    assert shared == {"dat_lambda0", "dat_amm", "dat_cal", "dat"}


@pytest.mark.parametrize(
    "varied",
    [
        "seed=0,1",
        "loss.lambda1=0,0.5",
        "loss.task.temperature=0.1,0.2",
        "optimizer.lr=0.1,0.01",
        "optimizer.weight_decay=0,0.1",
        "+optimizer.betas=[0.9,0.99],[0.8,0.9]",
        "+optimizer.eps=1e-8,1e-6",
        "logger=csv,none",
        "data.eval_batch_size=16,32",
        "paths.output_dir=a,b",
        "++paths.run_dir='${hydra:runtime.output_dir}',x",
    ],
)
def test_what_runs_of_a_pass_may_differ_in(varied):
    assert sizes(passes_of(two(varied))) == [2]


@pytest.mark.parametrize(
    "varied",
    [
        "model=dat,two_tower",
        "data=synthetic,movielens_100k",
        "data.k_core=0,5",
        "data.batch_size=32,64",
        "data.reader.seed=0,'${seed}1'",
        "model.dim=16,32",
        "model/history=mean,attention",
        "loss.reduction=pairs,positives",
        "loss.alignment.momentum=0,0.9",
        "negatives.num=16,32",
        "optimizer=adam,adamw",
        "scheduler=constant,cosine",
        "trainer.max_epochs=1,2",
        "trainer.accelerator=cpu,auto",
        "trainer.log_every_n_steps=1,2",
        "callbacks.early_stopping.patience=1,2",
        "callbacks.speed.float32_matmul=highest,high",
        "paths.data_dir=a,b",
    ],
)
def test_what_separates_runs(varied):
    passes = passes_of(two(varied))
    assert sizes(passes) == [1, 1] and passes[0].reason == fused_plan.UNIQUE


def two(varied):
    key, _, values = varied.partition("=")
    one, other = values.split("],[") if "],[" in values else values.split(",")
    if "],[" in values:
        one, other = f"{one}]", f"[{other}"
    return [f"{key}={one}"], [f"{key}={other}"]


def test_data_that_depend_on_the_seed_are_other_data():
    passes = passes_of(jobs(seed="0,1"), "data.reader.seed=${seed}")
    assert sizes(passes) == [1, 1]
    fixed = passes_of(jobs(seed="0,1"), "data.seed=7")  # the same batches for both
    assert sizes(fixed) == [2]


def test_a_value_that_the_run_alone_knows_keeps_it_alone():
    (one, _) = passes_of(jobs(seed="0,1"), "model.dim=${oc.env:NOT_SET_ANYWHERE}")
    assert one.reason == "model.dim is known only when the run starts"


def test_a_loss_of_ones_own_keeps_its_numbers():
    """The stacked step gives numbers to attributes whose meaning it knows."""
    settings, _ = settings_of(compose_train(OWN_LOSS, "loss.lambda1=0.5"))
    kept = dict(shape(settings))
    assert "loss.task.temperature" not in kept and "loss.lambda1" not in kept  # null, and a vector
    for key, differ in (("loss.task.temperature", 2), ("loss.lambda1", 1), ("seed", 1)):
        configs = [compose_train(OWN_LOSS, f"{key}={value}") for value in (1, 2)]
        assert len({shape(settings_of(config)[0]) for config in configs}) == differ, key


def test_a_mimic_loss_without_augmented_vectors_fails_apart_from_others():
    passes = passes_of(jobs(seed="0,1", loss__lambda1="0,0.5"), "model=two_tower")
    assert [one.jobs for one in passes] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model/history=gru", "model.history is GRU: recurrent kernels"),
        ("model=ials", "model is IALS: fitted in closed form"),
        ("model=popularity", "model is Popularity: fitted in closed form"),
        ("model.sharding=row", "model.sharding=row: several processes"),
        ("optimizer=lazy_adam", "LazyAdam: only Adam and AdamW"),
        ("optimizer=rowwise_adagrad", "RowwiseAdagrad: only Adam and AdamW"),
        ("optimizer._target_=torch.optim.SGD", "SGD: only Adam and AdamW"),
        ("optimizer._target_=mylab.Adam", "mylab.Adam: only Adam and AdamW"),
        ("+optimizer.amsgrad=true", "optimizer.amsgrad=True: not supported"),
        ("trainer.devices=2", "trainer.devices=2: several processes"),
        ("trainer.devices=auto", "trainer.devices=auto: several processes"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2: several processes"),
        ("trainer.strategy=ddp", "trainer.strategy=ddp: several processes"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed: only 32-true"),
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed: only 32-true"),
        ("+trainer.accumulate_grad_batches=2", "accumulate_grad_batches=2: an update"),
        ("+trainer.reload_dataloaders_every_n_epochs=1", "another loader takes over"),
        ("data.shuffle_window=4000000", "data.shuffle_window=4000000: large tables"),
        ("callbacks.speed.compile=true", "callbacks.speed.compile=True: the compiled step"),
    ],
)
def test_runs_that_are_trained_alone_say_why(setting, reason):
    first, second = passes_of(jobs(seed="0,1"), setting)
    assert reason in first.reason and first.reason == second.reason


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.precision=64-true",
        "+trainer.gradient_clip_val=1",
        "+trainer.accumulate_grad_batches=1",
        "callbacks.speed=null",
        "scheduler=cosine",
        "~logger",
    ],
)
def test_what_keeps_no_run_alone(setting):
    assert why_alone(settings_of(compose_train(setting))[0]) == ""


def test_the_numbers_are_those_of_the_stacked_step():
    assert fused_plan.OF_LOSSES == engine.VECTORS


def test_passes_are_of_nearly_equal_size():
    seeds = [0] * 7
    assert [len(part) for part in split(range(7), seeds, 3)] == [2, 2, 3]
    assert split(range(4), seeds, 4) == [[0, 1, 2, 3]]
    assert split(range(3), seeds, 1) == [[0], [1], [2]]


def test_runs_of_one_seed_stay_together_where_no_further_pass_is_needed():
    seeds = [0, 1, 2] * 4  # the seed changes fastest
    thirds = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert split(range(12), seeds, 4) == split(range(12), seeds, 5) == thirds
    assert split(range(12), seeds, 8) == [[0, 3, 6, 9], [1, 2, 4, 5, 7, 8, 10, 11]]
    assert split(range(12), seeds, 6) == [[0, 1, 3, 4, 6, 9], [2, 5, 7, 8, 10, 11]]  # not whole
    assert [len(part) for part in split(range(12), seeds, 3)] == [3, 3, 3, 3]


def test_a_limit_splits_passes_and_one_leaves_each_run_alone():
    varied = list(jobs(seed="0,1", loss__lambda1="0,0.1,0.5"))
    assert [one.jobs for one in passes_of(varied, limit=3)] == [[0, 1, 2], [3, 4, 5]]
    alone = passes_of(varied, limit=1)
    assert sizes(alone) == [1] * 6 and "hydra.launcher.max_runs" in alone[0].reason


def test_passes_follow_in_the_order_of_their_first_runs():
    passes = passes_of(jobs(seed="0,1", model="mf,ials,two_tower"))
    assert [one.jobs for one in passes] == [[0, 3], [1], [2, 5], [4]]


@pytest.fixture
def gpu(monkeypatch):
    """A machine with an NVIDIA GPU, as far as files and versions say."""
    monkeypatch.setattr(fused_plan.importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(fused_plan, "_nvidia_smi_lists_one", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("setting", "visible", "expected"),
    [
        ("trainer.accelerator=auto", None, True),
        ("trainer.accelerator=gpu", "0", True),
        ("trainer.accelerator=cpu", None, False),
        ("trainer.accelerator=auto", "", False),
        ("trainer.accelerator=auto", "-1", False),
    ],
)
def test_whether_a_run_trains_on_a_gpu(gpu, monkeypatch, setting, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert fused_plan.trains_on_gpu(compose_train(setting)) == expected


def test_a_torch_without_cuda_trains_on_a_cpu(gpu, monkeypatch):
    monkeypatch.setattr(fused_plan.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert not fused_plan.trains_on_gpu(compose_train())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("echo GPU 0: H200", True), ("echo No devices found.; exit 6", False), (None, False)],
)
def test_the_drivers_program_lists_gpus(tmp_path, monkeypatch, text, expected):
    program = tmp_path / "nvidia-smi"
    if text is not None:
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fused_plan._nvidia_smi_lists_one() == expected


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_shows_the_passes(tmp_path, monkeypatch, capsys, columns, on_gpu):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(tables, "trains_on_gpu", lambda config: on_gpu)
    config = compose_train(f"paths.cache_dir={tmp_path / 'cache'}")
    runs = [
        Run([f"seed={seed}", f"variant={name}"], tmp_path / f"{seed}{name}", "f", name, "d", config)
        for seed in (0, 1)
        for name in ("dat", "gru", "dat_amm")
    ]
    tables.print_plan(
        runs, tmp_path, 1, [Pass([0, 2, 3, 5]), Pass([1], "of it"), Pass([4], "of it")]
    )
    out = capsys.readouterr().out
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert [cells[4].strip() for cells in rows] == ["1", "alone", "1", "1", "alone", "1"]
    assert "pass 1: 4 runs in one, model=dat data=d variant=dat,dat_amm seed=0,1\n" in out
    assert "alone: 2, 5, because of it\n" in out
    assert ("on a CPU a pass takes" in out) != on_gpu and ("unless such runs" in out) == on_gpu
    assert max(map(len, out.splitlines()[:8])) <= columns
