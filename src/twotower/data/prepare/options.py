"""Decisions of preparation, checked, and as plain values for the cache key."""

from typing import Any, NamedTuple

from twotower.data.prepare.context import CLOCK
from twotower.data.prepare.filters import Filters
from twotower.data.prepare.hashing import NO_HASHES, Hashes
from twotower.data.splits import Split
from twotower.errors import UserError, check_choice, check_number

GROUPS = ("head", "middle", "tail")


class Options(NamedTuple):
    """Decisions of preparation.

    Attributes:
        filters: which interactions are kept.
        split: their parts.
        history_length: width of the history feature; 0 leaves it out.
        group_shares: categories, largest first, are ``head`` until they hold this share of training
            interactions, then ``middle`` until they hold the second share, then ``tail``.
        history_times: keep the time of each interaction, for encoders of histories that read it.
        clock_context: parts of each interaction's time that are features of the request, see
            :func:`~twotower.data.prepare.context.encode_context`.
        numeric_buckets: of numeric features, see :func:`~twotower.data.prepare.features.encode`.
        history_features: of the events in a history, see
            :func:`~twotower.data.prepare.events.event_features`.
        hashes: of features whose values never end.
    """

    filters: Filters
    split: Split
    history_length: int
    group_shares: tuple[float, float]
    history_times: bool = False
    clock_context: tuple[str, ...] = ()
    numeric_buckets: int | None = None
    history_features: tuple[str, ...] = ()
    hashes: Hashes = NO_HASHES

    def check(self) -> None:
        """Refuse values out of range."""
        self.filters.check()
        check_number("data.history_length", self.history_length, 0, 10_000)
        if self.numeric_buckets is not None:
            check_number("data.numeric_buckets", self.numeric_buckets, 2, 10_000)
        self.hashes.check()
        for part in self.clock_context:
            check_choice("data.clock_context", part, CLOCK)
        if self.history_features and not self.history_length:
            raise UserError("data.history_features needs a history: set data.history_length")
        shares = self.group_shares
        if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
            message = "data.group_shares must be two ascending shares in (0, 1]"
            raise UserError(f"{message}, got {list(shares)}")

    def plain(self) -> dict[str, Any]:
        """Plain values, for the cache key."""
        options = self._asdict()
        for name in ("history_times", "clock_context", "numeric_buckets", "history_features"):
            if not options[name]:
                del options[name]  # keeps data that were prepared before this existed
        hashes = options.pop("hashes")
        if hashes.buckets:
            options["hashes"] = [dict(hashes.buckets), hashes.num]
        return {
            **options,
            "split": [type(self.split).__name__, vars(self.split)],
            "filters": self.filters.plain(),
        }
