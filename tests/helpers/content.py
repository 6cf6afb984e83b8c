"""What a run leaves in its folder, and where two runs differ."""

import json

import torch

UNEQUAL = {"overrides", "train_examples_per_second", "wall_seconds", "peak_memory_bytes"}


def content(run):
    """All that a run leaves, but times and the path that it was resumed from."""
    record = json.loads((run / "metrics.json").read_text())
    found = {key: value for key, value in record.items() if key not in UNEQUAL}
    for path in sorted(run.glob("checkpoints/*")):
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["twotower"]["config"].pop("ckpt_path", None)
        checkpoint["twotower"].pop("overrides")
        found[path.name] = checkpoint
    plots = [str(path.relative_to(run)) for path in run.glob("plots/*")]
    for name in ("metrics.csv", "test_ranks.parquet", *plots):
        found[name] = (run / name).read_bytes() if (run / name).exists() else None
    return found


def differences(one, other, where=""):
    """Where two nested things differ, to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [f"{where}: {one.dtype} {other.dtype}"]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return [
            line
            for key in keys
            for line in differences(one.get(key), other.get(key), f"{where}/{key}")
        ]
    if isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for place, pair in pairs for line in differences(*pair, f"{where}/{place}")]
    return [] if one == other else [f"{where}: {one!r:.200} {other!r:.200}"]
