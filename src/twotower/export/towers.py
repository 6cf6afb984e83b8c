"""A tower as ONNX and as plain weights."""

import logging
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from twotower.layers.embedding_table import EmbeddingTable
from twotower.types import Feature, Model

OUTPUT = "vector"
# bytes of weights in one ONNX file: writing and opening it takes several times as much memory, and
# a file beside it is mapped
MAX_INSIDE = 1 << 28
BATCH = "batch"


class Tower(nn.Module):
    """One side of a model, which takes its features in order, so that no name is code.

    Args:
        model: any.
        side: ``user`` or ``item``.
        features: those of the side; ``names`` are the ones that the tower reads.
    """

    def __init__(self, model: Model, side: str, features: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.encode = model.encode_user if side == "user" else model.encode_item
        self.side = side
        recorder = _Recorder(features)
        with torch.no_grad():
            self.encode(recorder)
        self.names = [name for name in features if name in recorder.read]

    def forward(self, *values: Tensor) -> Tensor:
        """Features ``(batch, ...)`` to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        return self.encode(dict(zip(self.names, values, strict=True)))


class _Recorder(dict[str, Tensor]):
    """Features that record which of them were read."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        super().__init__(features)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def input_name(feature: str) -> str:
    """Name of a feature in a graph: its own, but ``vector_`` for the name of the output."""
    return f"{feature}_" if feature.rstrip("_") == OUTPUT else feature


def fix_cold_rows(model: Model) -> None:
    """Write the vectors of ``cold_ids`` into the tables, so that a graph needs no special case."""
    for module in model.modules():
        if isinstance(module, EmbeddingTable):
            module.fix_cold_row()


def write_tower(tower: Tower, features: dict[str, Tensor], folder: Path) -> "OnnxTower":
    """Write ``<side>_tower.onnx`` and ``<side>_tower.safetensors``.

    Args:
        tower: in evaluation mode, see :func:`fix_cold_rows`.
        features: of the side; indices as int64.
        folder: where.

    Returns:
        The ONNX file, opened.
    """
    # two rows: torch would take a batch of one for a constant
    two = [features[name][torch.arange(2) % len(features[name])] for name in tower.names]
    size = sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            tower,
            args=tuple(two),
            dynamo=True,
            verbose=False,
            output_names=[OUTPUT],
            dynamic_shapes={"values": tuple({0: torch.export.Dim(BATCH)} for _ in two)},
        )
    assert program is not None and program.exported_program is not None
    _name_inputs(program.model.graph, [input_name(name) for name in tower.names])
    path = folder / f"{tower.side}_tower.onnx"
    program.save(path, external_data=size > MAX_INSIDE)
    weights = path.with_suffix(".safetensors")
    save_file(_weights(tower, program.exported_program), weights)
    weights.chmod(path.stat().st_mode)  # safetensors lets only the owner read it
    return OnnxTower(path)


def _name_inputs(graph: Any, names: list[str]) -> None:
    """Name the inputs, and rename inner values with one of the names, such as ``embedding``."""
    inner = [value for node in graph for value in node.outputs if value not in graph.outputs]
    inner += graph.initializers.values()
    taken = {*names, OUTPUT, *(value.name for value in inner)}
    for value in inner:
        if value.name in names:
            value.name = next(name for i in count() if (name := f"{value.name}.{i}") not in taken)
            taken.add(value.name)
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = name


def _weights(tower: Tower, exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """The model's weights that the graph reads, by the model's own names."""
    signature = exported.graph_signature
    of_node = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    read = {of_node.get(node.name) for node in exported.graph.nodes if node.users}
    weights = tower.state_dict()
    return {
        name.removeprefix("model."): weights[name].contiguous() for name in weights if name in read
    }


class OnnxTower:
    """An exported tower in ONNX Runtime.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.input_names = [node.name for node in self.session.get_inputs()]

    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Features ``(batch, ...)`` to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        given = {input_name(name): value.numpy() for name, value in features.items()}
        inputs = {name: given[name] for name in self.input_names}
        vector: np.ndarray = self.session.run(None, inputs)[0]
        return vector

    def describe(self, features: tuple[Feature, ...]) -> dict[str, Any]:
        """Inputs and output for the manifest."""
        by_input = {input_name(feature.name): feature for feature in features}
        inputs = []
        for node in self.session.get_inputs():
            name, kind, num_values = by_input[node.name]
            about = {"feature": name, "kind": kind, "num_values": num_values}
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
