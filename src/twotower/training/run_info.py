"""What a checkpoint says about its run."""

from typing import Any, NamedTuple


class RunInfo(NamedTuple):
    """Facts about a run that its checkpoints hold besides weights and state, as plain containers.

    Attributes:
        choices: option of each config group.
        overrides: of the command line.
        config: plain values that rebuild the run; empty where it was not asked for.
        repeats: dotted names of values in the config that were interpolations.
        settings: values that tell variants apart, by dotted name.
        fingerprint: of the data; empty before the data are known.
        schema: of the data.
        val: metrics of the last validation.
    """

    choices: dict[str, Any]
    overrides: list[str]
    config: dict[str, Any] = {}
    repeats: list[str] = []
    settings: dict[str, str | int | float | bool | None] = {}
    fingerprint: str = ""
    schema: dict[str, Any] = {}
    val: dict[str, float] = {}
