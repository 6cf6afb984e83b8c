"""Code of an export's README that serves a user without an id."""

from typing import Any

from twotower.data.batches.features import OF_THE_EVENT

CODE = """rows = {item: row for row, item in enumerate(items)}
known = pq.read_table("vocabularies/item.item_id.parquet").to_pydict()
indices = dict(zip(known["value"], known["index"]))
READ_LABELS
def recommend_new(history, k=10, **features):
    given = {x.name: np.zeros(x.shape[1:], dtypes[x.type]) for x in tower.get_inputs()}
    if "history" in given:
        last = [indices.get(item, 0) for item in history][-len(given["history"]):]
        given["history"][len(given["history"]) - len(last):] = last
SET_LABELS    seen = SEEN
    return search({**given, **features}, seen, k)
"""

READ_LABELS = """labels = pq.read_table("item_vectors.parquet", columns=["features"])["features"]
"""
# an item that training did not see is unknown in a history, and so are its labels
SET_LABELS = """        for place, item in enumerate(history[-len(last):], -len(last)):
            label = labels[rows[item]].as_py() if item in indices else {}
            for name in given.keys() & label.keys():
                given[name][place] = label[name]
"""


def code(inputs: list[dict[str, Any]], mask_seen: bool) -> str:
    """Python that continues the example.

    Args:
        inputs: of the user tower, as the manifest has them.
        mask_seen: leave out the items of the history?
    """
    num_events = sum(entry["kind"] == "event" for entry in inputs)
    has_labels = num_events > len(_of_the_event(inputs))
    seen = "[rows[item] for item in history if item in rows]" if mask_seen else "[]"
    text = CODE.replace("READ_LABELS\n", f"{READ_LABELS}\n" if has_labels else "\n")
    return text.replace("SET_LABELS", SET_LABELS if has_labels else "").replace("SEEN", seen)


def notes(inputs: list[dict[str, Any]]) -> str:
    """What the code does not know of a new user, in sentences; empty if there is nothing."""
    if "history" not in [entry["name"] for entry in inputs]:
        return " This model reads no history, so all new users get the same list."
    if names := _of_the_event(inputs):
        listed = " and ".join(f"`{name}`" for name in names)
        return f" Item ids do not tell {listed}: 0 (unknown) for each item of the history."
    return ""


def _of_the_event(inputs: list[dict[str, Any]]) -> list[str]:
    """Inputs about the events of a history that are not labels of its items."""
    own = [f"history_{name}" for name in OF_THE_EVENT]
    return [entry["name"] for entry in inputs if entry["name"] in own]
