"""History encoders: one vector from a user's earlier items. One file, one ``conf/model/history``.

Each is called with ``(index, weight)`` and returns ``(batch, dim)``. The ``(batch, length)`` index
has ``item_id`` features, oldest first, 0 for padding and for items unseen in training; the weight
``(num_values, dim)`` is the table of item embeddings. An empty history gives a zero vector.
Positions count within the items that are read, so padding on the left changes nothing.

``places(index, weight)`` gives the vectors of all places, ``(batch, length, dim)``, each from the
items up to it. There an index has its known items at the end.
"""

from twotower.layers.history.attention import Attention
from twotower.layers.history.base import Sequences
from twotower.layers.history.bsarec import BSARec
from twotower.layers.history.gru import GRU
from twotower.layers.history.hstu import HSTU
from twotower.layers.history.ligr import LiGR
from twotower.layers.history.mean import Mean
from twotower.layers.history.transformer import Transformer

__all__ = ["GRU", "HSTU", "Attention", "BSARec", "LiGR", "Mean", "Sequences", "Transformer"]
