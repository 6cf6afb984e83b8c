"""Table that compares the exported files with the model."""

from pathlib import Path
from typing import Any

from rich.table import Table

from twotower.wording import PlainConsole


def show(record: dict[str, Any], folder: Path) -> None:
    """Print what was measured, and the folder."""
    index, parity = record["index"], record["parity"]
    table = Table(
        title=f"{record['model']} on {record['data']}: exported files beside the model",
        caption=f"{parity['users']:,} test users, one at a time on one thread",
        pad_edge=False,
    )
    names = (f"recall@{parity['k']}", f"hit_rate@{parity['k']}", "score difference", "ms")
    table.add_column("search", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("PyTorch, exact", "1.0000", f"{parity['exact_hit_rate']:.4f}", "", "")
    if index["type"] not in ("flat", "none"):
        table.add_row(*_cells("exact, from disk", parity["flat"]))
    exported = "exact, from disk" if index["type"] == "none" else f"{index['type']}, as exported"
    table.add_row(*_cells(exported, parity["index"]), style="bold")
    for point in parity["curve"]:
        table.add_row(*_cells(f"  {index['parameter']}={point[index['parameter']]}", point))
    console = PlainConsole()
    console.print(table)
    sides = ", ".join(f"{side} tower {parity[f'{side}_tower']:.2g}" for side in ("user", "item"))
    console.print(f"ONNX Runtime against PyTorch, largest difference: {sides}")
    size = sum(entry["bytes"] for entry in record["files"].values())
    console.print(f"{len(record['files'])} files, {size / 2**20:,.1f} MiB:")
    console.print(str(folder), soft_wrap=True)


def _cells(name: str, found: dict[str, float]) -> list[str]:
    shares = [f"{found[key]:.4f}" for key in ("recall", "hit_rate")]
    return [name, *shares, f"{found['max_score_difference']:.1e}", f"{found['milliseconds']:.3f}"]
