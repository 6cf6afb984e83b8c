"""Crafted checkpoints: values that a config must not hold."""

from tests.helpers.saved import changed

RUN = {"_target_": "os.system", "command": "touch CANARY"}
CREATE = "${oc.create:{_target_: os.system, command: touch CANARY}}"
REFUSED = {  # key of the config: value; blanks at its end tell equal keys apart
    "model": RUN,
    "model ": {"_target_": "subprocess.Popen", "args": ["touch", "CANARY"]},
    "model  ": {"_target_": "twotower.data.prepare.store.shutil.rmtree", "path": "."},
    "model   ": {"_target_": "twotower.run.train.torch.load", "f": "x"},
    "model    ": {"_target_": "twotower.run.cli.command", "config_name": "train"},
    "model     ": {"_target_": "hydra.utils.instantiate", "config": RUN},
    "model      ": {"_target_": "twotower.models.two_tower.nn.Module"},
    "model._target_": "twotower.models.two_tower.TwoTower ",
    "model._target_ ": ["os.system"],
    "model._target_  ": RUN,
    "model._target_   ": "${oc.decode:os.system}",
    "model.hidden_dims": [RUN],
    "model.dim": RUN,
    "model.history": RUN,
    "loss.alignment": {"_target_": "os.system", "_partial_": True},
    "optimizer": {**RUN, "_partial_": True},
    "optimizer._target_": "torch.optim.lr_scheduler.StepLR",
    "optimizer._target_ ": "torch.optim.adam.torch.load",
    "negatives.first": RUN,
    "metric.more": RUN,
    "data.reader": RUN,
    "data.reader._target_": "twotower.data.download.unpack.Archive",
    "data.reader.name": "../../elsewhere",
    "data.reader.folder": "/tmp",
    "data.reader.num_users": {"more": [RUN]},
    "data.split": RUN,
}


def crafted(saved, key, value):
    """A checkpoint with a value at a place of its config."""
    path = ("twotower", "config", *key.strip().split("."))
    checkpoint = saved.good()
    node = checkpoint
    for part in path[:-1]:
        node = node.setdefault(part, {})
    return saved.write(changed(checkpoint, path, value))
