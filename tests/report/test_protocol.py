"""The protocol of runs, and the commands that repeat them."""

from tests.report.world import OPTIONS, run_of
from twotower.report.protocol import Repeat, facts, repeats
from twotower.report.section import make_section

SETTINGS = {
    "data.split._target_": "twotower.data.splits.LeaveLastOut",
    "data.split.min_history": 1,
    "data.k_core": 5,
    "data.mask_seen": True,
    "data.batch_size": 256,
    "negatives._target_": "twotower.data.sampling.SharedUniform",
    "negatives.num": 1024,
    "optimizer._target_": "torch.optim.AdamW",
    "optimizer._partial_": True,
    "optimizer.lr": 0.003,
    "trainer.max_epochs": 10,
    "trainer.num_processes": 2,
}


def section(tmp_path):
    (tmp_path / "metrics.json").touch()
    runs = []
    for name, seed, lr, epochs in (("a", 0, 0.003, 4), ("b", 2, 0.003, 7), ("c", 0, 0.01, 10)):
        overrides = [
            f"optimizer.lr={lr}",
            "data.reader.path=[my file.csv]",
            "paths.data_dir=/home/me",
            "sweep=ablation",
            "trainer.accelerator=cpu",
            f"seed={seed}",
        ]
        run = run_of(
            seed,
            tmp_path,
            settings={**SETTINGS, "optimizer.lr": lr},
            overrides=overrides,
            test={"ndcg@10": 0.1},
            epochs=epochs,
            versions={"python": "3.11.7", "torch": "2.13.0", "commit": "abc"},
        )
        runs.append(run._replace(name=name))
    return make_section(runs, OPTIONS)


def test_the_protocol_names_what_all_runs_share_and_where_they_differ(tmp_path):
    assert facts(section(tmp_path)) == {
        "data": "toy, fingerprint f",
        "split": "LeaveLastOut (min_history=1)",
        "k-core": "5",
        "seen items hidden": "true",
        "epochs": "4 to 10 trained, at most 10",
        "batch": "256 a process, 2 processes",
        "negatives": "SharedUniform (num=1024)",
        "optimizer": "AdamW (lr=0.01) or AdamW (lr=0.003)",
        "seeds": "0, 2, not each of all variants",
        "versions": "python 3.11.7, torch 2.13.0",
        "commit": "abc",
    }


def test_a_command_trains_all_seeds_of_a_variant_and_has_nothing_of_the_machine(tmp_path):
    reader = "'data.reader.path=[my file.csv]'"
    assert sorted(repeats(section(tmp_path))) == [
        Repeat(
            "dat lr=0.003",
            f"python src/train.py -m optimizer.lr=0.003 {reader} seed=0,2",
            ["a", "b"],
        ),
        Repeat("dat lr=0.01", f"python src/train.py optimizer.lr=0.01 {reader} seed=0", ["c"]),
    ]
