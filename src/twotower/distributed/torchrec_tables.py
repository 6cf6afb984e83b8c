"""Tables that TorchRec looks up and trains, by its fused row-wise Adagrad, in blocks of rows.

TorchRec allocates the memory of the tables and of their optimizer's sums. The model's parameters
become views of it: what reads or writes a parameter (evaluation, checkpoints) needs no TorchRec.
The fused optimizer steps in the backward pass, so each table is looked up once in a step.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twotower.distributed.sharding import Block, num_rows, shard_of
from twotower.errors import UserError

VERSIONS = {"torchrec": "1.9.2", "fbgemm-gpu-cpu": "1.8.0"}  # on a GPU fbgemm-gpu, the same version
CURE = "run make torchrec, or set model.sharding=row"


class _Group(NamedTuple):
    """Tables of one width, which TorchRec reads together.

    Attributes:
        weights: the parameters by their names in the collection.
        collection: TorchRec's sharded ``EmbeddingCollection``.
        optimizer: its fused one.
    """

    weights: dict[str, nn.Parameter]
    collection: Any
    optimizer: Any


class TorchRecTables:
    """Takes tables over and gives their rows.

    Args:
        weights: own blocks of rows, of widths that are multiples of 4; they become views of the
            memory that TorchRec allocates.
        lr: the current learning rate, asked for in each step.
        eps: of the optimizer.
        weight_decay: of the optimizer, decoupled from the gradient.
        device: where the tables will be.
        local_size: processes on this machine.
    """

    def __init__(
        self,
        weights: list[nn.Parameter],
        lr: Callable[[], float],
        eps: float,
        weight_decay: float,
        device: torch.device,
        local_size: int,
    ) -> None:
        self.lr = lr
        self._looked_up: set[int] = set()  # identities of tables, in the current step
        by_width: dict[int, dict[str, nn.Parameter]] = {}
        for number, weight in enumerate(weights):
            by_width.setdefault(weight.shape[1], {})[f"table_{number}"] = weight
        # TorchRec asks in each lookup whether it is traced, of which torch warns
        logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
        fused = {"learning_rate": lr(), "eps": eps, "weight_decay": weight_decay}
        self.groups = [_group(named, fused, device, local_size) for named in by_width.values()]
        for group in self.groups:
            for name, weight in group.weights.items():
                rows = group.collection.embeddings[name].weight.data
                rows.copy_(weight.data)
                weight.data = rows
                weight.torchrec = self  # type: ignore[attr-defined]

    def look_up(self, weights: list[Tensor], ids: list[Tensor]) -> list[Tensor]:
        """Rows of each table; their backward pass is the tables' optimizer step.

        All processes must call it, with the same tables.

        Args:
            weights: some of the tables.
            ids: ``(num,)`` distinct ascending ids of each.

        Returns:
            ``(num, dim)`` of each table.

        Raises:
            UserError: for a table's second lookup in a step, as the optimizer would step twice.
        """
        asked = {id(weight): own for weight, own in zip(weights, ids, strict=True)}
        if self._looked_up & asked.keys():
            raise UserError(
                "model.sharding=torchrec: the model looks up a table twice in a step: request all "
                "ids in one fetched_together, or set model.sharding=row"
            )
        self._looked_up |= asked.keys()
        found: dict[int, Tensor] = {}  # by the identity of the table
        for group in self.groups:
            if not any(id(weight) in asked for weight in group.weights.values()):
                continue
            for part in group.optimizer.param_groups:
                part["lr"] = self.lr()
            group.optimizer.step()  # hands the rate to the kernels, no more
            rows = group.collection(_jagged(group.weights, asked, ids[0].new_empty(0)))
            for name, weight in group.weights.items():
                found[id(weight)] = rows[name].values()
        return [found[id(weight)] for weight in weights]

    def end_step(self) -> None:
        """Allow the next step's lookup."""
        self._looked_up.clear()

    def weights(self) -> list[nn.Parameter]:
        """The tables."""
        return [weight for group in self.groups for weight in group.weights.values()]

    def sums(self) -> dict[nn.Parameter, Tensor]:
        """``(num_own,)`` sums of squared gradients of each table, which a checkpoint may fill."""
        found = {}
        for group in self.groups:
            state = group.optimizer.state_dict()["state"]
            for name, weight in group.weights.items():
                (sharded,) = state[f"embeddings.{name}.weight"].values()
                found[weight] = sharded.local_shards()[0].tensor.view(-1)
        return found

    def release(self) -> None:
        """Leave the tables to whom reads them without gradient; frees what TorchRec holds."""
        for weight in self.weights():
            del weight.torchrec  # type: ignore[attr-defined]
        self.groups = []


def torchrec_of(weight: Tensor) -> TorchRecTables | None:
    """Who trains a table by TorchRec; None for all other tables."""
    return getattr(weight, "torchrec", None)


def can_train(weight: Tensor) -> bool:
    """Is a table sharded for TorchRec, with rows in every process? TorchRec fails without."""
    shard = shard_of(weight)
    return isinstance(shard, Block) and shard.width * (shard.world_size - 1) < shard.num_rows


def check_installed() -> None:
    """Refuse to train without TorchRec and FBGEMM in the versions that were tested together.

    Raises:
        UserError: with what is missing or differs.
    """
    found = {name: _version(name) for name in (*VERSIONS, "fbgemm-gpu")}
    on_gpu = found.pop("fbgemm-gpu")
    if found["fbgemm-gpu-cpu"] is None and on_gpu is not None:
        found["fbgemm-gpu-cpu"] = on_gpu
    wrong = [
        f"{name} {VERSIONS[name]} (found {version or 'none'})"
        for name, version in found.items()
        if (version or "").split("+")[0] != VERSIONS[name]
    ]
    if wrong:
        raise UserError(f"model.sharding=torchrec needs {' and '.join(wrong)}: {CURE}")
    try:
        importlib.import_module("torchrec")
    except Exception as error:  # of any of its own packages, and of libraries that do not load
        raise UserError(f"torchrec cannot be imported ({error}): {CURE}") from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _group(
    named: dict[str, nn.Parameter], fused: dict[str, Any], device: torch.device, local_size: int
) -> _Group:
    """Tables of one width, without values yet."""
    torchrec: Any = importlib.import_module("torchrec")
    embedding: Any = importlib.import_module("torchrec.distributed.embedding")
    plans: Any = importlib.import_module("torchrec.distributed.sharding_plan")
    kinds: Any = importlib.import_module("fbgemm_gpu.split_embedding_configs")
    decay: Any = importlib.import_module(
        "fbgemm_gpu.split_table_batched_embeddings_ops_training"
    ).WeightDecayMode
    tables = [
        torchrec.EmbeddingConfig(
            name=name,
            feature_names=[name],
            num_embeddings=num_rows(weight),
            embedding_dim=weight.shape[1],
            init_fn=lambda rows: None,  # the values are those of the model
        )
        for name, weight in named.items()
    ]
    collection = torchrec.EmbeddingCollection(tables=tables, device=torch.device("meta"))
    sharder = embedding.EmbeddingCollectionSharder(
        fused_params={
            "optimizer": kinds.EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            "weight_decay_mode": decay.DECOUPLE,
            **fused,
        }
    )
    plan = plans.construct_module_sharding_plan(
        collection,
        {name: plans.row_wise(compute_kernel="fused") for name in named},
        sharder,
        local_size=local_size,
        world_size=dist.get_world_size(),
        device_type=device.type,
    )
    sharding: Any = importlib.import_module("torchrec.distributed.shard")
    types: Any = importlib.import_module("torchrec.distributed.types")
    everyone = types.ShardingEnv.from_process_group(dist.group.WORLD)
    sharded = sharding.shard(collection, plan, everyone, device, sharder)
    return _Group(named, sharded, sharded.fused_optimizer)


def _jagged(weights: dict[str, nn.Parameter], asked: dict[int, Tensor], nothing: Tensor) -> Any:
    """The ids of each table as one list of any length; of a table that is not asked for none."""
    torchrec: Any = importlib.import_module("torchrec")
    ids = [asked.get(id(weight), nothing) for weight in weights.values()]
    lengths = torch.tensor([len(own) for own in ids], device=nothing.device)
    return torchrec.KeyedJaggedTensor(list(weights), torch.cat(ids), lengths=lengths)
