"""README of an export: a card of the model, how to serve it, and what was compared."""

from typing import Any

from twotower.export import new_user
from twotower.run.settings import changes_result, key_of

EXAMPLE = """import faiss, numpy as np, onnxruntime, pyarrow.parquet as pq

tower, index = onnxruntime.InferenceSession("user_tower.onnx"), INDEX
items = pq.read_table("item_vectors.parquet", columns=["item"])["item"].to_pylist()
dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32}

def search(features, seen, k):
    inputs = {x.name: np.array([features[x.name]], dtypes[x.type]) for x in tower.get_inputs()}
    vectors = tower.run(None, inputs)[0].reshape(-1, index.d)  # one, or one for each interest
WIDEN    scores, rows = index.search(vectors, k + len(seen))
    best = {}
    for score, row in sorted(zip(scores.ravel().tolist(), rows.ravel().tolist()), reverse=True):
        best.setdefault(row, score)
    return [(items[row], score) for row, score in best.items() if row not in (-1, *seen)][:k]

def recommend(user_id, k=10):
    user = pq.read_table("users.parquet", filters=[("user", "=", user_id)]).to_pylist()[0]
    return search(user["features"], user["seen"], k)
"""

READ_INDEX = 'faiss.read_index("index.faiss")'
WIDEN = """    # a search finds few more items than it has candidates
    index.hnsw.efSearch = max(EF_SEARCH, k + len(seen))
"""
FILL_INDEX = """faiss.IndexFlatIP(DIM)
for batch in pq.ParquetFile("item_vectors.parquet").iter_batches(columns=["vector"]):
    index.add(batch["vector"].flatten().to_numpy().reshape(-1, index.d))
"""

FILES = {
    "user_tower.onnx": "features of users in, vectors out; any number of users at a time",
    "item_tower.onnx": "features of items in, vectors out",
    "user_tower.safetensors": "weights of the user tower, by their names in the model",
    "item_tower.safetensors": "weights of the item tower",
    "item_vectors.parquet": "`item` (raw id), `vector`, `category` and, where known, `title` and "
    "`features` (labels of a history's items, as inputs); row i is row i of the index",
    "user_vectors.parquet": "`user` (raw id) and `vector` of all users at export",
    "users.parquet": "`user` (raw id), `features` (inputs of the user tower at export), `seen` "
    "(rows of the items to leave out)",
    "vocabularies/": "`<side>.<feature>.parquet`: `value` and `index`, its number in the inputs",
    "index.faiss": "the item vectors; the score is the inner product",
    "recall_latency.png": "recall against time of the approximate index",
    "manifest.json": "for programs: inputs, versions, metrics, parity, SHA-256 of every file",
}

SERVING = """## Serving

`pip install onnxruntime faiss-cpu pyarrow numpy`, then, in this folder:

```python
{example}```

A new user has no row in `users.parquet`. This continues the code above; `history` holds raw ids of
items, the oldest first:

```python
{new_user}```

`features` are other inputs of the user tower, as the numbers of the table below; those that are not
given are unknown, like the user's id.{notes}
"""

USE = """## Intended use and limits

- The model chooses candidates: the best items of a catalogue for a user, by the inner product of
  two vectors. The scores order the items of one user; they are not probabilities.
- It knows the users, items and interactions of its data and nothing later. An item without training
  interactions ({num_cold:,} of {items:,}) is placed by its features alone, if the model reads any.
  Train again as the catalogue changes.
- The metrics say how well it finds what users chose without it. They do not say what users would
  choose if they were shown its lists; that takes an experiment with users.
- Rare items and categories have fewer training interactions and are mostly found less often: see
  `head/`, `middle/` and `tail/` under `metrics` in `manifest.json`.
- `users.parquet` holds what each user chose. If that is personal data, so are this folder and the
  lists made with it.
"""


def as_readme(record: dict[str, Any], names: list[str]) -> str:
    """Markdown.

    Args:
        record: the manifest.
        names: of the files that are there.
    """
    dataset = record["dataset"]
    index = record["index"]
    num_cold = dataset["items"] - dataset["items_in_training"]
    lines = [f"# {record['model']} on {record['data']}", ""]
    lines += [record["data_note"], ""] if record["data_note"] else []
    lines += [
        f"A two-tower retrieval model, exported on {record['exported']}: a tower for users, a "
        f"tower for items, and {_index_of(index)} {index['items']:,} item vectors "
        f"with {index['dim']} numbers each.",
        "",
        *_metrics(record),
        *_data(dataset, record["data_fingerprint"]),
        USE.format(num_cold=num_cold, items=dataset["items"]),
        *["## Files", "", "| file | content |", "|---|---|"],
        *[f"| `{name}` | {text} |" for name, text in FILES.items() if name in names],
        "",
        _serving(record),
    ]
    for side in ("user", "item"):
        context = record["context"] if side == "user" else []
        lines += _inputs(side, record["schema"][f"{side}_tower"], record["numeric"], context)
    return "\n".join([*lines, *_parity(record), *_settings(record)])


def _index_of(index: dict[str, Any]) -> str:
    return "no index of" if index["type"] == "none" else f"an index (`{index['type']}`) of"


def _metrics(record: dict[str, Any]) -> list[str]:
    """A row for each metric of all users, without those that repeat another."""
    test, val = record["metrics"]["test"], record["metrics"].get("val") or {}
    popularity = record.get("popularity") or {}
    if not test:
        return ["## Metrics", "", "Unknown: the checkpoint is not in its run folder.", ""]
    heading = ["validation", "test", *["popularity, test"] * bool(popularity)]
    rows: dict[tuple[str, ...], str] = {}
    for name, value in test.items():
        if "/" not in name and name in val and name in record["half_width"]:
            cells = [_cell(val[name]), f"{value:.4f} ± {record['half_width'][name]:.4f}"]
            if popularity:
                cells.append(_cell(popularity.get(name)))
            rows.setdefault(tuple(cells), name)
    hidden = "without those that the user had seen" if record["dataset"]["mask_seen"] else "all"
    return [
        *[
            "## Metrics",
            "",
            f"| metric | {' | '.join(heading)} |",
            "|---" * (1 + len(heading)) + "|",
        ],
        *[f"| {name} | {' | '.join(cells)} |" for cells, name in rows.items()],
        "",
        f"Every item is ranked ({hidden}); ties count against the model. ± is a 95 % interval over "
        f"the test users. It is of this one training, seed {record['seed']}: another seed gives "
        "other values, which the interval leaves out."
        + " Popularity ranks by the number of training interactions."
        * bool(popularity),
        "",
    ]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _data(dataset: dict[str, Any], fingerprint: str) -> list[str]:
    split = dict(dataset["split"])
    name, meaning = split.pop("name"), split.pop("meaning")
    lines = [
        "## Data",
        "",
        f"- {dataset['users']:,} users, {dataset['items']:,} items, "
        f"{dataset['interactions']:,} interactions, {dataset['training_interactions']:,} of them "
        "for training",
        f"- split `{name}` ({_pairs(split)}): {meaning}",
        f"- filters: {_pairs(dataset['filters'])}",
    ]
    for part, times in dataset["times"].items():
        lines.append(f"- {part}: from {times['first']} to {times['last']} (UTC)")
    return [*lines, f"- fingerprint: {fingerprint}", ""]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _serving(record: dict[str, Any]) -> str:
    index = READ_INDEX
    if record["index"]["type"] == "none":  # all vectors in memory: the exact index
        index = FILL_INDEX.replace("DIM", str(record["index"]["dim"]))
    widen = ""
    if record["index"]["type"] == "hnsw":
        widen = WIDEN.replace("EF_SEARCH", str(record["index"]["settings"]["ef_search"]))
    inputs = record["schema"]["user_tower"]["inputs"]
    return SERVING.format(
        example=EXAMPLE.replace("INDEX", index).replace("WIDEN", widen),
        new_user=new_user.code(inputs, record["dataset"]["mask_seen"]),
        notes=new_user.notes(inputs),
    )


def _inputs(
    side: str, tower: dict[str, Any], numeric: dict[str, dict[str, float]], context: list[str]
) -> list[str]:
    lines = [f"## Inputs of `{side}_tower.onnx`", ""]
    lines += ["| input | type | shape | meaning |", "|---|---|---|---|"]
    for entry in tower["inputs"]:
        cells = (f"`{entry['name']}`", *_array(entry), _meaning(side, entry, numeric))
        lines.append(f"| {' | '.join(cells)} |")
    if names := [
        f"`{name}`" for name in context if name in {e["feature"] for e in tower["inputs"]}
    ]:
        lines += [
            "",
            f"{', '.join(names)}: of the request; `users.parquet` holds 0 (unknown), so set it.",
        ]
    output = tower["output"]
    return [*lines, "", f"Output: `{output['name']}`, {', '.join(_array(output))}.", ""]


def _array(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["dtype"], f"({', '.join(map(str, entry['shape']))})"


def _meaning(side: str, entry: dict[str, Any], numeric: dict[str, dict[str, float]]) -> str:
    name, kind = f"{side}.{entry['feature']}", entry["kind"]
    if kind == "numeric":
        known = numeric[name]
        return f"(value - {known['mean']:.6g}) / {known['std']:.6g}; 0 if unknown"
    if kind == "vector":
        return f"(value - mean) / std of `vocabularies/{name}.parquet`, by number; 0 if unknown"
    if name == "user.history_time_gap":
        gap = "1 + floor(log2(1 + seconds since the item before)), at most 32"
        return f"{gap}, of each item of `history`; 0 of the first one and before"
    if kind == "event":
        if entry["feature"] not in ("history_category", "history_behaviour"):
            name = f"item.{entry['feature'].removeprefix('history_')}"  # a label of the items
        of = f"index of `vocabularies/{name}.parquet`; 0 if unknown"
        return (
            f"of each item of `history`: {_hash_meaning(numeric[name]) if name in numeric else of}"
        )
    if kind == "history":
        return "indices of `vocabularies/item.item_id.parquet`, oldest first, padded with 0 before"
    if kind == "multi" and name in numeric:
        return _hash_meaning(numeric[name])
    order = ", in any order, padded with 0" if kind == "multi" else ""
    return f"index of `vocabularies/{name}.parquet`{order}; 0 if unknown"


def _hash_meaning(known: dict[str, float]) -> str:
    return (
        f"of each value {known['hashes']} numbers: 1 + (each of the first {known['hashes']} groups "
        f"of eight hexadecimal digits of the MD5 of its text) modulo {known['buckets']}; 0 if "
        "missing or empty. The text has no blanks around it, and 5.0 is `5`"
    )


def _parity(record: dict[str, Any]) -> list[str]:
    parity, k = record["parity"], record["parity"]["k"]
    lines = ["## Comparison with the model", ""]
    for side in ("user", "item"):
        difference = f"{parity[f'{side}_tower']:.2g}"
        lines.append(f"- `{side}_tower.onnx` differs from PyTorch by {difference} at most.")
    found, kind = parity["index"], record["index"]["type"]
    name = "Exact search in the item vectors" if kind == "none" else f"`index.faiss` ({kind})"
    lines.append(
        f"- {name} over {parity['users']:,} test users: "
        f"recall@{k} of exact search {found['recall']:.4f}, hit rate@{k} {found['hit_rate']:.4f} "
        f"(exact search {parity['exact_hit_rate']:.4f})."
    )
    return [*lines, ""]


def _settings(record: dict[str, Any]) -> list[str]:
    given = " ".join(text for text in record["overrides"] if changes_result(key_of(text)))
    trained = f"Trained with `{given}`" if given else "Trained with the defaults"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [
        "## Settings and versions",
        "",
        f"{trained}; all settings are under `settings` in `manifest.json`.",
        "",
        f"Exported with {versions}.",
        "",
    ]
