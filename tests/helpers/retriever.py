"""A retriever with a model that was not trained."""

from tests.helpers.models import build
from twotower.serve.retriever import Retriever
from twotower.training.run_info import RunInfo

INFO = RunInfo({"model": "m", "data": "d"}, [], {"seed": 1, "model": {"cold_ids": "mean"}})


def make_retriever(data, name="two_tower", *overrides):
    return Retriever(data, build(name, data, *overrides), INFO)
