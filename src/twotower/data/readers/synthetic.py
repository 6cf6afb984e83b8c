"""A planted world: synthetic users and items whose true ranking is known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from twotower.data.frames import Frames, WithoutFiles
from twotower.errors import check_number

USERS_PER_CHUNK = 50_000
FAVOURITE_WEIGHTS = np.array([0.6, 0.3, 0.1])
FAVOURITE_SHARE = 0.85  # the rest of a user's choices follow the clusters' popularity
START_TIME = 1_600_000_000


class Synthetic(WithoutFiles):
    """Users choose a cluster, then an item by popularity; they never take an item twice.

    ``P(item | user) = P(cluster | user) P(item | cluster)``. A user has three favourite clusters;
    clusters and items follow Zipf laws; each cluster belongs to one category, a few of which are
    large. Features carry part of the signal: a user's ``segment`` is the first favourite in 60 % of
    cases, an item's ``brand`` its cluster in 70 %, ``tags``, ``age`` and ``price`` lean on the
    cluster, ``region`` is noise. As choices are drawn without replacement by fixed odds, ranking
    unseen items by ``log P`` is the best that any model can do; it is handed over as ``latents``.

    With ``num_styles`` the world is one that category alignment assumes: a cluster is a style
    within a category, users prefer styles, the same ones in every category, and categories, large
    or small, differ in nothing but their size. So the vectors of all categories have the same true
    covariance, and a small one has too few interactions to show it. ``style_exponent`` breaks this:
    each category then has other styles in abundance.

    Args:
        num_users: users.
        num_items: items.
        num_categories: categories, their sizes by Zipf's law.
        num_clusters: latent clusters, at least one per category; not used with ``num_styles``.
        interactions_per_user: median; the distribution is log-normal, at least 5.
        seed: of the world; the training seed is another.
        category_exponent: Zipf exponent of the sizes of categories; 0: all are equal.
        num_styles: styles of each category; None: clusters belong to one category each.
        style_exponent: Zipf exponent of the styles' shares within a category, in another order in
            each; 0: all are equal, and so are the covariances.
    """

    name = "synthetic"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_categories: int,
        num_clusters: int,
        interactions_per_user: int,
        seed: int,
        category_exponent: float = 1.0,
        num_styles: int | None = None,
        style_exponent: float = 0.0,
    ) -> None:
        check_number("data.reader.num_users", num_users, 1)
        check_number("data.reader.num_items", num_items, 3)
        check_number("data.reader.seed", seed, 0)
        check_number("data.reader.category_exponent", category_exponent, 0, 10)
        check_number("data.reader.style_exponent", style_exponent, 0, 10)
        if num_styles is None:
            check_number("data.reader.num_clusters", num_clusters, 3, num_items)
            check_number("data.reader.num_categories", num_categories, 1, num_clusters)
        else:
            check_number("data.reader.num_categories", num_categories, 1)
            check_number("data.reader.num_styles", num_styles, 2, num_items // num_categories)
            num_clusters = num_categories * num_styles
        check_number(
            "data.reader.interactions_per_user", interactions_per_user, 5, max(5, num_items // 2)
        )
        self.num_users = num_users
        self.num_items = num_items
        self.num_categories = num_categories
        self.num_clusters = num_clusters
        self.interactions_per_user = interactions_per_user
        self.seed = seed
        self.category_exponent = category_exponent
        self.num_styles = num_styles
        self.style_exponent = style_exponent

    @property
    def num_values(self) -> int:
        """About how many numbers the world has."""
        return (
            self.num_users * (self.interactions_per_user + self.num_clusters)
            + self.num_items * self.num_clusters
        )

    def read(self, data_dir: Path) -> Frames:
        """Generate the world."""
        rng = np.random.default_rng(self.seed)
        category_share = _zipf(self.num_categories, self.category_exponent)
        if self.num_styles is None:
            cluster_share = _zipf(self.num_clusters, 0.7)
            category = rng.permutation(_spread(self.num_clusters, category_share))  # (clusters,)
            items, item_cluster, log_p = self._items(rng, category, None)
        else:
            style_share = _zipf(self.num_styles, self.style_exponent)
            shares = [np.roll(style_share, place) for place in range(self.num_categories)]
            cluster_share = (category_share[:, None] * shares).ravel()  # (clusters,)
            category = np.arange(self.num_clusters) // self.num_styles
            items, item_cluster, log_p = self._items(rng, category, cluster_share)
        chunks = list(self._users(rng, cluster_share, items["item"], item_cluster, log_p))
        users = pl.concat([chunk[0] for chunk in chunks])
        preference = pl.concat([chunk[1] for chunk in chunks])
        truth = np.concatenate(
            [np.eye(self.num_clusters)[item_cluster], log_p[:, None]], axis=1
        )  # (items, clusters + 1)
        return Frames(
            interactions=pl.concat([chunk[2] for chunk in chunks]),
            users=users,
            items=items,
            user_features={"segment": "categorical", "region": "categorical", "age": "numeric"},
            item_features={"brand": "categorical", "tags": "multi", "price": "numeric"},
            latents={
                "user": (users["user"], preference),
                "item": (items["item"], pl.DataFrame(truth.astype(np.float32))),
            },
        )

    def _items(
        self, rng: np.random.Generator, category: np.ndarray, share: np.ndarray | None
    ) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
        """Items sorted by cluster, the cluster of each and ``log P(item | cluster)``.

        ``share`` are the clusters' shares of the items, None: equal.
        """
        num, clusters = self.num_items, self.num_clusters
        if share is None:
            more = rng.integers(clusters, size=num - clusters)
        else:
            more = rng.choice(clusters, p=share, size=num - clusters)
        cluster = np.sort(np.concatenate([np.arange(clusters), more]))
        rank = np.arange(num) - np.searchsorted(cluster, cluster)
        weight = 1 / (rank + 2.0) ** 0.8
        log_p = np.log(weight / np.bincount(cluster, weight)[cluster])
        tags = (cluster[:, None] * 2 + rng.integers(0, 4, size=(num, 3))) % (
            2 * clusters
        )  # neighbours share tags
        items = pl.DataFrame(
            {
                "item": rng.permutation(num),  # ids say nothing about clusters
                "category": [f"category {index}" for index in category[cluster]],
                "brand": np.where(rng.random(num) < 0.7, cluster, rng.integers(clusters, size=num)),
                "tags": pl.Series(tags).arr.to_list().list.unique(),
                "price": np.exp(rng.normal(0, 0.5, num) + cluster / clusters),
            }
        )
        return items, cluster, log_p

    def _users(
        self,
        rng: np.random.Generator,
        cluster_share: np.ndarray,
        item_id: pl.Series,
        item_cluster: np.ndarray,
        log_p: np.ndarray,
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
        """Chunks of (users, true log preference for clusters and 1, interactions)."""
        kinds = self.num_styles or self.num_clusters  # what users have favourites among
        kind_share = cluster_share if self.num_styles is None else _zipf(kinds, 0.0)
        item_cdf = item_cluster + _cdf_within(
            item_cluster, np.exp(log_p)
        )  # ascending over all items
        for first in range(0, self.num_users, USERS_PER_CHUNK):
            num = min(USERS_PER_CHUNK, self.num_users - first)
            favourite = rng.choice(kinds, p=kind_share, size=(num, 3))
            preference = np.tile((1 - FAVOURITE_SHARE) * kind_share, (num, 1))  # (num, kinds)
            for column, weight in enumerate(FAVOURITE_WEIGHTS):
                preference[np.arange(num), favourite[:, column]] += FAVOURITE_SHARE * weight
            if self.num_styles is not None:
                preference = np.tile(preference, self.num_categories) * cluster_share
                preference /= preference.sum(1, keepdims=True)  # (num, clusters)
            segment = np.where(
                rng.random(num) < 0.6, favourite[:, 0], rng.integers(kinds, size=num)
            )
            users = pl.DataFrame(
                {
                    "user": np.arange(first, first + num),
                    "segment": segment,
                    "region": rng.integers(10, size=num),
                    "age": 20 + 40 * favourite[:, 0] / kinds + rng.normal(0, 8, num),
                }
            )
            truth = np.concatenate([np.log(preference), np.ones((num, 1))], axis=1).astype(
                np.float32
            )
            chosen = self._choose(rng, preference, item_cdf).with_columns(
                user=pl.col("user") + first, item=pl.lit(item_id).gather(pl.col("row"))
            )
            yield users, pl.DataFrame(truth), chosen.select("user", "item", "time", "value")

    def _choose(
        self, rng: np.random.Generator, preference: np.ndarray, item_cdf: np.ndarray
    ) -> pl.DataFrame:
        """Interactions of one chunk of users, drawn without replacement: repeats are dropped."""
        num = len(preference)
        wanted = np.exp(rng.normal(np.log(self.interactions_per_user), 0.6, num)).astype(np.int64)
        wanted = wanted.clip(5, self.num_items // 2)
        user = np.repeat(np.arange(num), 3 * wanted)
        cdf = np.arange(num)[:, None] + preference.cumsum(1) / preference.sum(
            1, keepdims=True
        )  # ascending over all users
        draw = np.searchsorted(cdf.ravel(), user + rng.random(len(user)), side="right")
        cluster = np.minimum(draw - user * self.num_clusters, self.num_clusters - 1)
        item = np.searchsorted(item_cdf, cluster + rng.random(len(user)), side="right").clip(
            max=self.num_items - 1
        )
        order = pl.int_range(pl.len()).over("user")
        return (
            pl.DataFrame({"user": user, "row": item, "wanted": wanted[user]})
            .unique(["user", "row"], keep="first", maintain_order=True)
            .filter(order < pl.col("wanted"))
            .select(
                "user",
                "row",
                time=START_TIME + 86_400 * order + pl.col("user") * 7919 % 86_400,
                value=pl.lit(1.0),
            )
        )


def _zipf(num: int, exponent: float) -> np.ndarray:
    weight = 1 / np.arange(1, num + 1) ** exponent
    share: np.ndarray = weight / weight.sum()
    return share


def _spread(num: int, share: np.ndarray) -> np.ndarray:
    """``num`` labels whose counts follow ``share``, each label at least once."""
    extra = np.searchsorted(
        share.cumsum(), (np.arange(num - len(share)) + 0.5) / max(1, num - len(share))
    )
    return np.concatenate([np.arange(len(share)), extra.clip(max=len(share) - 1)])


def _cdf_within(group: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Cumulative probability within runs of equal ``group``, whose sums are 1."""
    total = p.cumsum()
    start = np.searchsorted(group, group)
    return total - np.where(start > 0, total[start - 1], 0)
