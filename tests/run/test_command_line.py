"""A mistyped command line ends with a line that says what to type."""

import shlex

import pytest

from twotower.errors import UserError
from twotower.run.command_line import check_arguments


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model dat", "--model: write model=dat"),
        ("--model=dat", "--model=dat: write model=dat"),
        ("-model dat", "-model: write model=dat"),
        ("seed=1 --batch-size 64", "--batch-size: write data.batch_size=64"),
        ("--lambda3 seed=1", "--lambda3: write loss.lambda3=…"),
        ("--dry", "--dry: write dry=true"),
        ("--foo", "unrecognized arguments: --foo (give settings as name=value, -m first"),
        ("model = dat", "model = dat: write model=dat, without blanks"),
        ("model =dat", "model =dat: write model=dat, without blanks"),
        ("model= dat seed=1", "model= dat: write model=dat, without blanks"),
        ("model dat", "model: write model=dat"),
        ("seed=1 dry", "dry: write dry=true"),
        ("foo", "foo: a setting is given as name=value (a value with blanks needs quotes)"),
        ("=3", "=3: a setting is given as name=value"),
        ("model.hidden_dims=[256,128", "the bracket [ is not closed"),
        ("model.hidden_dims=256,128]", "the bracket ] is not opened"),
        ("model.hidden_dims=[256, 128, 64] seed=1", "'model.hidden_dims=[256, 128, 64]'"),
        ('"logger.name=it\'s"', "the quotation mark ' is not closed"),
        ("'trainer.max_epochs=1 seed=2'", "each setting is an argument of its own"),
        ("logger.name=a=b", "need quotes within quotes: 'logger.name=\"a=b\"'"),
        ("data=base", "data=base: no such option; choose from amazon, "),
        ("data.split=temporal", "write data/split=temporal"),
        ("+model.history=gru", "write model/history=gru"),
    ],
)
def test_what_to_type_is_named(line, message):
    with pytest.raises(UserError) as refused:
        check_arguments("train", shlex.split(line))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "model=dat seed=1 -m",
        "~logger model/history=gru",
        "data.reader.columns.user= seed=1",
        "'model.hidden_dims=[256, 128]'",
        "'data.reader.interactions=\"my file (1).csv\"'",
        "+trainer.gradient_clip_val=1 'model= dat'",
        "hydra.run.dir='${paths.output_dir}/mine'",
    ],
)
def test_what_hydra_understands_passes(line):
    check_arguments("train", shlex.split(line))


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("train", "lambda3=0", "unknown setting lambda3 (did you mean loss.lambda3?)"),
        ("train", "batch_size=64", "unknown setting batch_size (did you mean data.batch_size?)"),
        ("train", "data/k_core=3", "unknown setting data/k_core (did you mean data.k_core?)"),
        (
            "prepare",
            "data=table item_columns.category=region",
            "item_columns.category (did you mean data.reader.item_columns.category?)",
        ),
        (
            "prepare",
            "data=table data.reader.category=region",
            "did you mean data.reader.columns.category or data.reader.item_columns.category?)",
        ),
        ("train", "logger.name=x", "(a setting of logger=tensorboard, logger=wandb)"),
        ("train", "+model=mf", "model is chosen already: write model=…, without +"),
        ("train", "model=", "model=: no such option; choose from dat, "),
        ("train", "'seed=range(0,3)'", "several values are a sweep and need -m"),
        ("train", "~model", "~model removes what every run needs"),
        ("evaluate", "model=mf", "unknown setting model (it comes from the checkpoint)"),
        ("report", "model=mf", "unknown setting model"),
        ("report", "--runs outputs", "--runs: write runs=outputs"),
    ],
)
def test_hydras_messages_are_in_our_words(script, name, line, message):
    run = script(name, *shlex.split(line))
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
    assert message in run.stderr


def test_a_part_of_other_options_is_not_offered(script):
    run = script("train", "data=nothing")
    assert "choose from amazon, " in run.stderr and "base," not in run.stderr
