"""README of an export: its files, how to serve from them, and what was measured."""

from typing import Any

EXAMPLE = """import faiss, numpy as np, onnxruntime, pyarrow.parquet as pq

tower, index = onnxruntime.InferenceSession("user_tower.onnx"), faiss.read_index("index.faiss")
items = pq.read_table("item_vectors.parquet", columns=["item"])["item"].to_pylist()
dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

def recommend(user_id, k=10):
    user = pq.read_table("users.parquet", filters=[("user", "=", user_id)]).to_pylist()[0]
    features, seen = user["features"], user["seen"]
    inputs = {x.name: np.array([features[x.name]], dtypes[x.type]) for x in tower.get_inputs()}
    vectors = tower.run(None, inputs)[0].reshape(-1, index.d)  # one, or one for each interest
    scores, rows = index.search(vectors, k + len(seen))
    best = {}
    for score, row in sorted(zip(scores.ravel().tolist(), rows.ravel().tolist()), reverse=True):
        best.setdefault(row, score)
    return [(items[row], score) for row, score in best.items() if row not in (-1, *seen)][:k]
"""

FILES = {
    "user_tower.onnx": "features of users in, vectors out; any number of users at a time",
    "item_tower.onnx": "features of items in, vectors out",
    "user_tower.safetensors": "weights of the user tower, by their names in the model",
    "item_tower.safetensors": "weights of the item tower",
    "item_vectors.parquet": "`item` (raw id), `vector`, `category` and, where known, `title`; row "
    "i is row i of the index",
    "user_vectors.parquet": "`user` (raw id) and `vector` of all users at export",
    "users.parquet": "`user` (raw id), `features` (inputs of the user tower at export), `seen` "
    "(rows of the items to leave out)",
    "vocabularies/": "`<side>.<feature>.parquet`: `value` and `index`, its number in the inputs",
    "index.faiss": "the item vectors; the score is the inner product",
    "recall_latency.png": "recall against time of the approximate index",
    "manifest.json": "for programs: inputs, versions, metrics, parity, SHA-256 of every file",
}

SERVING = f"""
## Serving

`pip install onnxruntime faiss-cpu pyarrow numpy`, then, in this folder:

```python
{EXAMPLE}```

`users.parquet` has no row of a new user: give the features directly, with `user_id` 0 and the
`history` of their clicks.
"""


def as_readme(record: dict[str, Any], names: list[str]) -> str:
    """Markdown.

    Args:
        record: the manifest.
        names: of the files that are there.
    """
    lines = [f"# {record['model']} on {record['data']}", ""]
    lines += [record["data_note"], ""] if record["data_note"] else []
    lines += ["| file | content |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in FILES.items() if name in names]
    lines.append(SERVING)
    for side in ("user", "item"):
        lines += _inputs(side, record["schema"][f"{side}_tower"], record["numeric"])
    parity, k = record["parity"], record["parity"]["k"]
    lines += ["## Measured", ""]
    for side in ("user", "item"):
        difference = f"{parity[f'{side}_tower']:.2g}"
        lines.append(f"- `{side}_tower.onnx` differs from PyTorch by {difference} at most.")
    found = parity["index"]
    lines.append(
        f"- `index.faiss` ({record['index']['type']}) over {parity['users']:,} test users: "
        f"recall@{k} of exact search {found['recall']:.4f}, hit rate@{k} {found['hit_rate']:.4f} "
        f"(exact search {parity['exact_hit_rate']:.4f})."
    )
    return "\n".join([*lines, ""])


def _inputs(side: str, tower: dict[str, Any], numeric: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"## Inputs of `{side}_tower.onnx`", ""]
    lines += ["| input | type | shape | meaning |", "|---|---|---|---|"]
    for entry in tower["inputs"]:
        cells = (f"`{entry['name']}`", *_array(entry), _meaning(side, entry, numeric))
        lines.append(f"| {' | '.join(cells)} |")
    output = tower["output"]
    return [*lines, "", f"Output: `{output['name']}`, {', '.join(_array(output))}.", ""]


def _array(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["dtype"], f"({', '.join(map(str, entry['shape']))})"


def _meaning(side: str, entry: dict[str, Any], numeric: dict[str, dict[str, float]]) -> str:
    name, kind = f"{side}.{entry['feature']}", entry["kind"]
    if kind == "numeric":
        known = numeric[name]
        return f"(value - {known['mean']:.6g}) / {known['std']:.6g}; 0 if unknown"
    if kind == "history":
        return "indices of `vocabularies/item.item_id.parquet`, oldest first, padded with 0 before"
    order = ", in any order, padded with 0" if kind == "multi" else ""
    return f"index of `vocabularies/{name}.parquet`{order}; 0 if unknown"
