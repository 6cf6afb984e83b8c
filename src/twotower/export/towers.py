"""A tower as ONNX and as plain weights."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from twotower.layers.embedding_table import EmbeddingTable
from twotower.types import Feature

MAX_INSIDE = 1_500_000_000  # bytes of weights in one ONNX file; it may hold 2 GB
BATCH = "batch"


class Tower(nn.Module):
    """One side of a model as a function of its features.

    Args:
        model: any.
        side: ``user`` or ``item``.
    """

    def __init__(self, model: Any, side: str) -> None:
        super().__init__()
        self.model = model
        self.side = side

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Features, each ``(batch, ...)``, to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        return self.model.encode_user(features) if self.side == "user" else self.model.encode_item(features)


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


def fix_cold_rows(model: nn.Module) -> None:
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
    two = {name: value[torch.arange(2) % len(value)] for name, value in features.items()}  # one row would be a constant
    size = sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            tower,
            kwargs={"features": two},
            dynamo=True,
            verbose=False,
            input_names=list(two),
            output_names=["vector"],
            dynamic_shapes={"features": {name: {0: torch.export.Dim(BATCH)} for name in two}},
        )
    assert program is not None and program.exported_program is not None
    program.save(folder / f"{tower.side}_tower.onnx", external_data=size > MAX_INSIDE)
    save_file(_weights(tower, program.exported_program), folder / f"{tower.side}_tower.safetensors")


def _weights(tower: Tower, exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """The model's weights that the graph reads, by the model's own names."""
    signature = exported.graph_signature
    of_node = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    read = {
        of_node[node.name] for node in exported.graph.nodes if node.op == "placeholder" and node.users and node.name in of_node
    }
    return {name.removeprefix("model."): value.contiguous() for name, value in tower.state_dict().items() if name in read}


class OnnxTower:
    """An exported tower in ONNX Runtime.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, features: dict[str, Tensor]) -> np.ndarray:
        """Features, each ``(batch, ...)``, to ``(batch, dim)``, or ``(batch, num_interests, dim)``."""
        return self.session.run(None, {node.name: features[node.name].numpy() for node in self.session.get_inputs()})[0]

    def describe(self, features: tuple[Feature, ...]) -> dict[str, Any]:
        """Inputs and output for the manifest."""
        by_name = {feature.name: feature for feature in features}
        inputs = [
            {**_describe(node), "kind": by_name[node.name].kind, "num_values": by_name[node.name].num_values}
            for node in self.session.get_inputs()
        ]
        return {"inputs": inputs, "output": _describe(self.session.get_outputs()[0])}


def _describe(node: Any) -> dict[str, Any]:
    dtype = {"tensor(int64)": "int64", "tensor(float)": "float32"}[node.type]
    return {"name": node.name, "dtype": dtype, "shape": [BATCH, *node.shape[1:]]}


def as_inputs(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features on the CPU as an exported tower takes them: indices as int64, numbers as float32."""
    return {name: (value.float() if value.is_floating_point() else value.long()).cpu() for name, value in features.items()}
