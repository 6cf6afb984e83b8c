"""A tower as ONNX and as plain weights."""

import logging
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save
from torch import Tensor, nn

from twotower.layers.embedding_table import EmbeddingTable
from twotower.types import Feature, Model

OUTPUT = "vector"
MAX_INSIDE = 1_500_000_000  # bytes of weights in one ONNX file; it may hold 2 GB
BATCH = "batch"


class Tower(nn.Module):
    """One side of a model as a function of its features.

    Args:
        model: any.
        side: ``user`` or ``item``.
    """

    def __init__(self, model: Model, side: str) -> None:
        super().__init__()
        self.model = model
        self.side = side

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Features, each ``(batch, ...)``, to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        return (
            self.model.encode_user(features)
            if self.side == "user"
            else self.model.encode_item(features)
        )


class _ByPlace(nn.Module):
    """A tower that takes its features in order: torch and ONNX learn no name that comes from data."""

    def __init__(self, tower: Tower, names: list[str]) -> None:
        super().__init__()
        self.tower = tower
        self.names = names

    def forward(self, *values: Tensor) -> Tensor:
        """As :class:`Tower`."""
        return self.tower(dict(zip(self.names, values, strict=True)))


class _Noting(dict[str, Tensor]):
    """Features that remember which of them were read."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        super().__init__(features)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


@torch.no_grad()
def inputs_of(tower: Tower, features: dict[str, Tensor]) -> list[str]:
    """Names of the features that a tower reads, in their order."""
    noting = _Noting(features)
    tower(noting)
    return [name for name in features if name in noting.read]


def input_name(feature: str) -> str:
    """What a graph calls a feature: by the feature's own name, and ``vector_`` for that of its output."""
    return f"{feature}_" if feature.rstrip("_") == OUTPUT else feature


def fix_cold_rows(model: Model) -> None:
    """Write the cold policy's vectors into the tables, so that a graph is the same for every id."""
    for module in model.modules():
        if isinstance(module, EmbeddingTable):
            module.fix_cold_row()


def write_tower(tower: Tower, features: dict[str, Tensor], folder: Path) -> None:
    """Write ``<side>_tower.onnx`` and ``<side>_tower.safetensors``.

    Args:
        tower: in evaluation mode, see :func:`fix_cold_rows`.
        features: a few rows of those that it reads; indices as int64.
        folder: where.
    """
    two = {
        name: value[torch.arange(2) % len(value)] for name, value in features.items()
    }  # one row would be a constant
    size = sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            _ByPlace(tower, list(two)),
            args=tuple(two.values()),
            dynamo=True,
            verbose=False,
            output_names=[OUTPUT],
            dynamic_shapes={"values": tuple({0: torch.export.Dim(BATCH)} for _ in two)},
        )
    assert program is not None and program.exported_program is not None
    _name_inputs(program.model.graph, [input_name(name) for name in two])
    program.save(folder / f"{tower.side}_tower.onnx", external_data=size > MAX_INSIDE)
    (folder / f"{tower.side}_tower.safetensors").write_bytes(
        save(_weights(tower, program.exported_program))
    )


def _name_inputs(graph: Any, names: list[str]) -> None:
    """Name the inputs; values inside that have one of the names, such as ``embedding`` or ``sum_1``, get another."""
    inside = [value for node in graph for value in node.outputs if value not in graph.outputs]
    taken = {*names, OUTPUT, *(value.name for value in inside), *graph.initializers}
    for value in [*inside, *graph.initializers.values()]:
        if value.name in names:
            value.name = next(name for i in count() if (name := f"{value.name}.{i}") not in taken)
            taken.add(value.name)
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = name


def _weights(tower: Tower, exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """The model's weights that the graph reads, by the model's own names."""
    signature = exported.graph_signature
    of_node = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    read = {
        of_node[node.name]
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.users and node.name in of_node
    }
    weights = tower.state_dict(prefix="tower.")
    return {
        name.removeprefix("tower.model."): value.contiguous()
        for name, value in weights.items()
        if name in read
    }


class OnnxTower:
    """An exported tower in ONNX Runtime.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Features, each ``(batch, ...)``, to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        given = {input_name(name): value for name, value in features.items()}
        return self.session.run(
            None, {node.name: given[node.name].numpy() for node in self.session.get_inputs()}
        )[0]

    def describe(self, features: tuple[Feature, ...]) -> dict[str, Any]:
        """Inputs and output for the manifest."""
        by_input = {input_name(feature.name): feature for feature in features}
        inputs = []
        for node in self.session.get_inputs():
            feature = by_input[node.name]
            about = {
                "feature": feature.name,
                "kind": feature.kind,
                "num_values": feature.num_values,
            }
            inputs.append({**_describe(node), **about})
        return {"inputs": inputs, "output": _describe(self.session.get_outputs()[0])}


def _describe(node: Any) -> dict[str, Any]:
    dtype = {"tensor(int64)": "int64", "tensor(float)": "float32"}[node.type]
    return {"name": node.name, "dtype": dtype, "shape": [BATCH, *node.shape[1:]]}


def as_inputs(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features on the CPU as an exported tower takes them: indices as int64, numbers as float32."""
    return {
        name: (value.float() if value.is_floating_point() else value.long()).cpu()
        for name, value in features.items()
    }
