"""An export's parity as a table."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(record: dict[str, Any], folder: Path) -> None:
    """Print what was measured, and where the files are."""
    console, parity, k = Console(highlight=False), record["parity"], record["parity"]["k"]
    title = f"{record['model']} on {record['data']}: exported files beside the model"
    table = Table(
        title=title,
        caption=f"{parity['users']:,} test users, one at a time on one thread",
        pad_edge=False,
    )
    for name in ("search", f"recall@{k}", f"hit_rate@{k}", "score difference", "ms"):
        table.add_column(name, justify="left" if name == "search" else "right", no_wrap=True)
    table.add_row("PyTorch, exact", "1.0000", f"{parity['exact_hit_rate']:.4f}", "", "")
    index = record["index"]
    if index["type"] != "flat":
        table.add_row(*_cells("flat", parity["flat"]))
    table.add_row(*_cells(f"{index['type']}, as exported", parity["index"]), style="bold")
    for point in parity["curve"]:
        table.add_row(*_cells(f"  {index['parameter']}={point[index['parameter']]}", point))
    console.print(table)
    differences = ", ".join(
        f"{side} tower {parity[f'{side}_tower']:.2g}" for side in ("user", "item")
    )
    console.print(f"ONNX Runtime against PyTorch, largest difference: {differences}")
    size = sum(entry["bytes"] for entry in record["files"].values())
    console.print(f"{len(record['files'])} files, {size / 2**20:,.1f} MiB:")
    console.print(str(folder), markup=False, soft_wrap=True)


def _cells(name: str, found: dict[str, float]) -> list[str]:
    difference = f"{found['max_score_difference']:.1e}"
    return [
        name,
        f"{found['recall']:.4f}",
        f"{found['hit_rate']:.4f}",
        difference,
        f"{found['milliseconds']:.3f}",
    ]
