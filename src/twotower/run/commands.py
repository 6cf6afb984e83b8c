"""The commands and their functions. The settings of a command are in ``conf/<command>.yaml``."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    Attributes:
        purpose: what it does, in a few words.
        function: its dotted name; the module is imported when the config is composed.
        in_sweep: the function that the jobs of a sweep run instead.
    """

    purpose: str
    function: str
    in_sweep: str = ""


COMMANDS = {
    "train": Command(
        "train a model and test its best checkpoint",
        "twotower.run.train.train",
        in_sweep="twotower.sweep.launch.train",
    ),
    "evaluate": Command("repeat the test of a checkpoint", "twotower.run.evaluate.evaluate"),
    "recommend": Command("ask a trained model", "twotower.serve.recommend.recommend"),
    "report": Command("compare run folders", "twotower.report.command.report"),
    # typed as a word after report
    "list": Command("list all runs", "twotower.report.listing.show"),
    "export": Command("write a checkpoint for other systems", "twotower.export.command.export"),
    "prepare": Command("prepare and describe data", "twotower.run.prepare.prepare"),
    # benchmarks/ is outside the package
    "benchmark": Command("measure speed and memory", "benchmarks.command.benchmark"),
}
