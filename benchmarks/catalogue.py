"""Peak memory of exporting a large catalogue of items, and of ranking users against it.

The model is not trained: memory and time do not depend on what it has learnt, recall does.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch.multiprocessing.spawn import spawn

from benchmarks.memory import AnonymousPeak, apart, with_random_clicks
from benchmarks.random_clicks import PER_USER
from benchmarks.timing import now
from twotower.data.batches.loader import EvalLoader
from twotower.distributed.sharding import built_for
from twotower.files import read_json, write_json
from twotower.run.build import build, build_part, seed_everything
from twotower.run.results import peak_memory_bytes

MEBIBYTE = 2**20


def measure(
    config: DictConfig,
    num_items: int,
    users: int,
    indexes: DictConfig,
    num_queries: int,
    processes: int,
) -> dict[str, Any]:
    """Seconds and peak memory of an export with each index, and of ranking ``users`` users.

    Each has processes of its own.

    Args:
        config: as composed from ``train.yaml``.
        num_items: of the catalogue.
        users: each with 30 interactions, ranked against all items.
        indexes: options of ``conf/index`` by name.
        num_queries: users whose searches are compared with exact search.
        processes: that rank together, after one alone.
    """
    settings = with_random_clicks(config, PER_USER * users, num_items)
    plain: Any = OmegaConf.to_container(indexes, resolve=True)
    rows = [apart(_export, settings, {name: plain[name]}, num_queries) for name in plain]
    rows += [_ranking(settings, num) for num in sorted({1, processes})]
    return {"num_items": num_items, "users": users, "dim": config.model.dim, "rows": rows}


def _export(
    memory: AnonymousPeak, settings: Any, index: dict[str, Any], num_queries: int
) -> dict[str, Any]:
    from twotower.export import card
    from twotower.export.folder import Measure, write_export

    seed_everything(settings["seed"])
    data, task = build(settings)
    about = {
        "model": "not trained",
        "data": data.reader.name,
        "data_note": data.note,
        "data_fingerprint": data.fingerprint,
        "dataset": card.about_data(data),
        "exported": "",
        "overrides": [],
        "seed": settings["seed"],
        "metrics": {"test": None},
    }
    built = memory.peak
    stages: list[tuple[str, float]] = []
    peaks: list[int] = []

    def begin(stage: str) -> None:
        peaks.append(memory.restart())
        stages.append((stage, now()))

    (name,) = index
    measured = Measure(num_queries, 10, 0, 1e-4)
    with TemporaryDirectory(dir=settings["paths"]["cache_dir"]) as folder:
        target = Path(folder) / "export"
        kind = build_part(index, name)
        model = task.model.train(False)
        record = write_export(target, about, model, data, kind, False, measured, begin, print)
    begin("end")
    memory.peak = max(built, *peaks)
    steps = {}
    for place, (stage, started) in enumerate(stages[:-1]):
        seconds = stages[place + 1][1] - started
        steps[stage] = {"seconds": seconds, "anonymous": peaks[place + 1]}
    return {
        "what": f"export, index={name}",
        "seconds": stages[-1][1] - stages[0][1],
        "stages": steps,
        "plan": record["index"]["plan"],
        "recall": record["parity"]["index"]["recall"],
        "index_bytes": record["files"].get("index.faiss", {}).get("bytes", 0),
    }


def _ranking(settings: Any, processes: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        spawn(_rank, (settings, processes, torch.get_num_threads(), Path(folder)), processes)
        return {"what": f"ranking, {processes} process(es)", **read_json(Path(folder) / "0.json")}


def _rank(rank: int, settings: Any, processes: int, threads: int, folder: Path) -> None:
    """Rank in one process of a group; each writes what it measured of itself."""
    memory = AnonymousPeak()
    torch.set_num_threads(threads)
    if processes > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", rendezvous, rank=rank, world_size=processes)
    seed_everything(settings["seed"])
    with built_for(rank, processes):
        data, task = build(settings)
    task.train(False)
    all_users = data.test_dataloader()
    position, num_targets = all_users.position, all_users.num_targets
    started = now()
    with torch.no_grad():
        device = torch.device("cpu")
        task.evaluation.start(data.corpus, data.schema.num_items, device, "32-true")
        for index in EvalLoader(position, num_targets, all_users.batch_size, rank, processes):
            task.evaluation.rank(data.eval_batch(index))
        task.evaluation.finish()
    measured = {"seconds": now() - started, "anonymous": memory.peak}
    write_json(folder / f"{rank}.json", {**measured, "resident": peak_memory_bytes()})
    if processes > 1:
        dist.destroy_process_group()


def table(record: dict[str, Any]) -> Table:
    """Seconds and memory."""
    title = f"{record['num_items']:,} items, {record['dim']} dimensions, {record['users']:,} users"
    shown = Table(title=f"{title}, {record['threads']} threads", pad_edge=False)
    shown.add_column("what", no_wrap=True)
    for column in ("seconds", "MiB", "mapped too", "recall@10", "index, MiB"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in record["rows"]:
        memory = [f"{row[name] / MEBIBYTE:,.0f}" for name in ("anonymous", "resident")]
        own = ["", ""]
        if "recall" in row:
            own = [f"{row['recall']:.4f}", f"{row['index_bytes'] / MEBIBYTE:,.0f}"]
        shown.add_row(row["what"], f"{row['seconds']:,.1f}", *memory, *own)
        for stage, step in row.get("stages", {}).items():
            peak = f"{step['anonymous'] / MEBIBYTE:,.0f}"
            shown.add_row(f"  {stage}", f"{step['seconds']:,.1f}", peak, "", "", "")
    shown.caption = "peak memory of the first process of each; the model is not trained"
    return shown
