"""The variants of a search, and which settings each of them varies.

The rule: ``conf/search/shared.yaml`` or what ``search=`` names instead, then the file named like
the model, then the one named like the variant. Left out are settings that the variant does not
have, that the command gives a value, or that the variant's own file sets, unless the search's file
of that variant names them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from twotower.errors import UserError
from twotower.run.checks.checks import suggest
from twotower.run.conf import groups, known, options
from twotower.run.settings import key_of, leaves
from twotower.sweep.plan import Run, as_override, run_name
from twotower.sweep.space import Distribution, Space, read_space, refuse_differences


class Candidate(NamedTuple):
    """A variant that is searched.

    Attributes:
        label: names its study and its folders.
        base: the run with the values that it has without a search.
        space: what is varied.
        fixed: why other settings of its files are not varied.
    """

    label: str
    base: Run
    space: Space
    fixed: dict[str, str]


def label_of(base: Run, varied: Sequence[str]) -> str:
    """A short name of a variant: the value of what is varied, or of all of it with the keys."""
    if not varied:
        return str(base.choices.get("variant") or base.model)
    own = [text for text in base.overrides if key_of(text) in varied]
    name = run_name(own, varied=varied)
    return name.removeprefix(f"{varied[0]}-") if len(varied) == 1 else name


def candidate(label: str, base: Run, loader: Any, command: str) -> Candidate:
    """A variant with its space.

    Args:
        label: of the variant.
        base: the run that it is without a search.
        loader: Hydra's, which finds the files.
        command: name of the primary config.

    Raises:
        UserError: for an unknown setting, a config group, a wrong distribution, or nothing to
            search.
    """
    choices = base.choices
    shared: Any = OmegaConf.to_container(base.config.search)
    own = _file(loader, choices.get("variant"))
    node = OmegaConf.merge(shared, _file(loader, base.model), own)
    _apply(node, base.overrides)
    plain: Any = OmegaConf.to_container(node)
    found = read_space(plain)
    has = dict(leaves("", OmegaConf.to_container(base.config, resolve=False)))
    _refuse_typos(found, [*has, *known("train")])
    given = {key_of(text) for text in base.overrides}
    named = [*(f"search.{key}." for key in read_space(own)), *(f"{key}." for key in given)]
    by_variant = _set_by_variant(loader, command, base.overrides)
    fixed = {}
    for key, distribution in found.items():
        if distribution is None:
            continue
        if key not in has:
            fixed[key] = "not a setting of it"
        elif key in given:
            fixed[key] = "given by the command"
        elif key in by_variant and not any(name.startswith(f"search.{key}.") for name in named):
            fixed[key] = "set by the variant"
    in_shared = [f"{name}." for name, _ in leaves("", shared)]
    first = [key for key in found if any(name.startswith(f"{key}.") for name in in_shared)]
    space = {}
    for key in dict.fromkeys([*first, *found]):  # all variants draw what they share first
        distribution = found[key]
        if distribution is not None and key not in fixed:
            space[key] = distribution
    if not space:
        raise UserError(f"{label} has no setting to search: leave it out, or give search=<a file>")
    return Candidate(label, base, space, fixed)


def check_together(candidates: Iterable[Candidate]) -> None:
    """Refuse variants that would not be tuned alike.

    Raises:
        UserError: naming the setting or the variants.
    """
    refuse_differences({one.label: one.space for one in candidates})


def check_values(candidates: Iterable[Candidate], compose: Callable[[list[str], str], Run]) -> None:
    """Refuse a space with values that a variant does not take.

    Every choice and both ends of every interval are tried, one of each setting in a composed
    config.

    Args:
        candidates: the variants.
        compose: makes a run of its overrides and the name of its folder, and checks it.

    Raises:
        UserError: naming the variant, the setting and the value.
    """
    for one in candidates:
        examples = {key: distribution.examples() for key, distribution in one.space.items()}
        for place in range(max(map(len, examples.values()))):
            texts = {
                key: f"{key}={as_override(values[min(place, len(values) - 1)])}"
                for key, values in examples.items()
            }
            try:
                compose([*one.base.overrides, *texts.values()], one.label)
            except UserError:
                _refuse_each(one, texts, compose)


def _refuse_each(
    one: Candidate, texts: dict[str, str], compose: Callable[[list[str], str], Run]
) -> None:
    """Refuse what is wrong in itself. Values that only do not fit one another are failed trials."""
    for key, text in texts.items():
        try:
            compose([*one.base.overrides, text], one.label)
        except UserError as error:
            raise UserError(f"search.{key}: {one.label} does not take {text}: {error}") from None


def _file(loader: Any, name: str | None) -> Any:
    """A file of ``search/`` in the config's search path, empty if there is none."""
    result = loader.repository.load_config(f"search/{name}") if name else None
    return {} if result is None else OmegaConf.to_container(result.config)


def _apply(node: Any, overrides: Iterable[str]) -> None:
    """Repeat the command's own changes of the space, which come after all files."""
    for text in overrides:
        key = key_of(text)
        if key.startswith("search."):
            value = OverridesParser.create().parse_override(text).value()
            OmegaConf.update(node, key.removeprefix("search."), value, force_add=True)


def _refuse_typos(found: dict[str, Distribution | None], known_names: Iterable[str]) -> None:
    """Refuse what is no setting that a trial could be given a value of."""
    names = {name for name in known_names if not name.startswith("search.")}
    groups_by_key = {group.replace("/", "."): group for group in groups("train")}
    for key, distribution in found.items():
        is_node = any(name.startswith(f"{key}.") for name in names)
        if key not in names and not is_node:
            raise UserError(f"unknown setting search.{key}{suggest(key, names)}")
        if distribution is None:  # leaves out all below it
            continue
        if group := groups_by_key.get(key):
            chosen = ",".join(map(str, distribution.choices)) or ",".join(options(group))
            raise UserError(
                f"search.{key}: a config group cannot be searched, its options are variants: "
                f"leave it out, and give {group}={chosen}"
            )
        if is_node:
            raise UserError(f"search.{key} is a node: search the settings below it")


def _set_by_variant(loader: Any, command: str, overrides: list[str]) -> set[str]:
    """The settings in the variant's file, and in those that it begins from."""
    found: set[str] = set()
    listed = loader.compute_defaults_list(command, overrides, RunMode.RUN).defaults
    for item in listed:
        if str(item.config_path).startswith("variant/"):
            config = loader.repository.load_config(item.config_path).config
            found |= dict(leaves("", OmegaConf.to_container(config, resolve=False))).keys()
    return found
