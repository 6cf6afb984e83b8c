"""Checkpoints whose config has what it must not."""

from tests.helpers.saved import changed

RUN = {"_target_": "os.system", "command": "touch CANARY"}
CREATE = "${oc.create:{_target_: os.system, command: touch CANARY}}"
REFUSED = {  # place in the config: value
    "model": RUN,
    "model ": {"_target_": "subprocess.Popen", "args": ["touch", "CANARY"]},
    "model  ": CREATE,
    "model   ": {"_target_": "builtins.exec", "_args_": ["open('CANARY', 'w')"]},
    "model    ": {"_target_": "twotower.data.prepare.store.shutil.rmtree", "path": "."},
    "model     ": {"_target_": "twotower.run.train.torch.load", "f": "x"},
    "model      ": {"_target_": "twotower.run.cli.command", "config_name": "train"},
    "model       ": {"_target_": "twotower.files.write_text", "target": "CANARY", "text": ""},
    "model        ": {"_target_": "hydra.utils.instantiate", "config": RUN},
    "model         ": {"_target_": "hydra.utils.get_object", "path": "os.system"},
    "model          ": {"_target_": "twotower.models.two_tower.nn.Module"},
    "model           ": {"_target_": "torch.optim.AdamW", "_partial_": True},
    "model._target_": "twotower.models.two_tower.TwoTower ",
    "model._target_ ": ["os.system"],
    "model._target_  ": RUN,
    "model._target_   ": "${oc.decode:os.system}",
    "model._partial_": True,
    "model._args_": [RUN],
    "model._recursive_": False,
    "model._convert_": "all",
    "model.hidden_dims": [RUN],
    "model.dim": RUN,
    "model.history": RUN,
    "model.history._target_": "twotower.models.two_tower.TwoTower",
    "loss": RUN,
    "loss.task": {"_target_": "twotower.models.mf.MF"},
    "loss.alignment": {"_target_": "os.system", "_partial_": True},
    "optimizer": {**RUN, "_partial_": True},
    "optimizer._partial_": False,
    "optimizer._target_": "torch.optim.lr_scheduler.StepLR",
    "optimizer._target_ ": "torch.optim.adam.torch.load",
    "negatives": RUN,
    "negatives.first": RUN,
    "metric.ndcg": RUN,
    "metric.more": RUN,
    "data": RUN,
    "data.reader": RUN,
    "data.reader._target_": "twotower.data.download.unpack.Archive",
    "data.reader.name": "../../elsewhere",
    "data.reader.folder": "/tmp",
    "data.reader.clicks": ["../../*"],
    "data.reader.num_users": {"more": [RUN]},
    "data.split": RUN,
    "callbacks.best.monitor": [RUN],
    "callbacks.best.mode": "${oc.env:SECRET}",
    "trainer.precision": "${oc.env:SECRET}",
    "trainer.max_epochs": [RUN],
}


def crafted(saved, key, value, old=False):
    """A checkpoint with a value at a place of its config; ``old``: as earlier versions wrote it."""
    path = ("twotower", "config", *key.strip().split("."))
    checkpoint = saved.good()
    if old:
        for name in ("repeats", "settings"):
            del checkpoint["twotower"][name]
    node = checkpoint
    for part in path[:-1]:
        node = node.setdefault(part, {})
    return saved.write(changed(checkpoint, path, value))
