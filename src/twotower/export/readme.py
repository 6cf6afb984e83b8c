"""The README of an export: what each file is, and how to serve from them."""

from typing import Any

EXAMPLE = """import faiss, numpy as np, onnxruntime, pyarrow.parquet as pq

tower, index = onnxruntime.InferenceSession("user_tower.onnx"), faiss.read_index("index.faiss")
items = pq.read_table("item_vectors.parquet", columns=["item"])["item"].to_pylist()
dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

def recommend(user_id, k=10):
    user = pq.read_table("users.parquet", filters=[("user", "=", user_id)]).to_pylist()[0]
    inputs = {node.name: np.array([user["features"][node.name]], dtypes[node.type]) for node in tower.get_inputs()}
    vectors = tower.run(None, inputs)[0].reshape(-1, index.d)  # one, or one for each interest of the user
    scores, rows = index.search(vectors, k + len(user["seen"]))
    best = {}
    for score, row in sorted(zip(scores.ravel().tolist(), rows.ravel().tolist()), reverse=True):
        best.setdefault(row, score)
    return [(items[row], score) for row, score in best.items() if row not in (-1, *user["seen"])][:k]
"""

FILES = {
    "user_tower.onnx": "features of users in, vectors out; any number of users at a time",
    "item_tower.onnx": "features of items in, vectors out",
    "user_tower.safetensors": "the weights that the user tower reads, by their names in the model",
    "item_tower.safetensors": "the same of the item tower",
    "item_vectors.parquet": "`item` (raw id), `vector`, `category` and, where known, `title`; row i is row i of the index",
    "user_vectors.parquet": "`user` (raw id) and `vector` of all users as they were known at export",
    "users.parquet": "`user` (raw id), `features` (inputs of the user tower at export), `seen` (rows of the items to leave out)",
    "vocabularies/": "`<side>.<feature>.parquet`: `value` and `index`, the number that the towers take for it",
    "index.faiss": "the item vectors; the score is the inner product",
    "recall_latency.png": "recall against time of the approximate index",
    "manifest.json": "all of this for machines: inputs, versions, metrics, parity, SHA-256 of every file",
}


def as_readme(record: dict[str, Any], names: list[str]) -> str:
    """Markdown.

    Args:
        record: the manifest.
        names: of the files that are there.
    """
    lines = [f"# {record['model']} on {record['data']}", ""]
    lines += [record["data_note"], ""] if record["data_note"] else []
    lines += ["| file | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in FILES.items() if name in names]
    lines += [
        "",
        "## Serving",
        "",
        f"`pip install {' '.join(_REQUIRED)}`, then, in this folder:",
        "",
        "```python",
        EXAMPLE + "```",
        "",
    ]
    lines += [
        "A new user is no row of `users.parquet`: give the features directly, `user_id` 0 and the `history` of what was clicked.",
        "",
    ]
    for side in ("user", "item"):
        lines += _inputs(side, record["schema"][f"{side}_tower"], record["numeric"])
    lines += _measured(record)
    return "\n".join(lines)


_REQUIRED = ("onnxruntime", "faiss-cpu", "pyarrow", "numpy")


def _inputs(side: str, tower: dict[str, Any], numeric: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        f"## Inputs of `{side}_tower.onnx`",
        "",
        "| input | type | shape | meaning |",
        "|---|---|---|---|",
    ]
    for entry in tower["inputs"]:
        shape = ", ".join(map(str, entry["shape"]))
        lines.append(
            f"| `{entry['name']}` | {entry['dtype']} | ({shape}) | {_meaning(side, entry, numeric)} |"
        )
    shape = ", ".join(map(str, tower["output"]["shape"]))
    return [
        *lines,
        "",
        f"Output: `{tower['output']['name']}`, {tower['output']['dtype']}, ({shape}).",
        "",
    ]


def _meaning(side: str, entry: dict[str, Any], numeric: dict[str, dict[str, float]]) -> str:
    name = f"{side}.{entry['feature']}"
    if entry["kind"] == "numeric":
        known = numeric.get(name)
        return (
            f"(value - {known['mean']:.6g}) / {known['std']:.6g}; 0 if unknown"
            if known
            else "standardised; 0 if unknown"
        )
    if entry["kind"] == "history":
        return "indices of `vocabularies/item.item_id.parquet`, oldest first, zeros on the left where there are fewer"
    several = ", in any order, zeros where there are fewer" if entry["kind"] == "multi" else ""
    return f"index of `vocabularies/{name}.parquet`{several}; 0 if unknown"


def _measured(record: dict[str, Any]) -> list[str]:
    parity, k = record["parity"], record["parity"]["k"]
    lines = ["## Measured", ""]
    for side in ("user", "item"):
        lines.append(
            f"- `{side}_tower.onnx` differs from PyTorch by {parity[f'{side}_tower']:.2g} at most."
        )
    found = parity["index"]
    lines.append(
        f"- `index.faiss` ({record['index']['type']}): recall@{k} {found['recall']:.4f} of exact search, hit rate@{k} "
        f"{found['hit_rate']:.4f}, exactly {parity['exact_hit_rate']:.4f}, over {parity['users']:,} test users."
    )
    return [*lines, ""]
