"""The table reader on small files."""

import yaml

from tests.conftest import ROOT
from twotower.data.readers.table import Table

CLICKS = "user_id,item_id,timestamp\n7,007,1600000000\n7,010,1600000060\n9,007,1600000030\n"


def reader(**changes):
    """The reader of conf/data/table.yaml with other settings; dots are written as ``__``."""
    given = yaml.safe_load((ROOT / "conf" / "data" / "table.yaml").read_text())["reader"]
    del given["_target_"]
    for name, value in changes.items():
        *parents, leaf = name.split("__")
        (given[parents[0]] if parents else given)[leaf] = value
    return Table(**given)


def read(folder, clicks=CLICKS, items=None, users=None, **changes):
    for name, content in (("clicks", clicks), ("items", items), ("users", users)):
        if content is not None:
            (folder / f"{name}.csv").write_text(content)
            changes.setdefault({"clicks": "interactions"}.get(name, name), f"{name}.csv")
    return reader(**changes).read(folder)


def rows(frames, *columns):
    return frames.interactions.select(*(columns or ("user", "item", "time"))).rows()


def with_times(*times, header="user,item,time"):
    return "\n".join([header, *[f"u,i{place},{time}" for place, time in enumerate(times)], ""])


def trained_hit_rates(script, settings, variants, metric="hit_rate@10"):
    """Test metric of the user's own clicks by variant, each trained in a folder of its name."""
    common = ("data=table", "data.reader.interactions=clicks.csv", "data.reader.columns.time=step")
    quiet = ("data.reader.time_unit=step", "callbacks.progress=null", "callbacks.diagnostics=null")
    found = {}
    for name, change in variants.items():
        run = script("train", *common, *quiet, *settings, *change.split(), f"hydra.run.dir={name}")
        assert run.returncode == 0, run.stderr
        found[name] = script.metrics(name)["test"][metric]
    return found
