"""A tiny MovieLens-1M."""

from pathlib import Path


def make_1m(folder: Path) -> Path:
    top = folder / "ml-1m"
    top.mkdir(parents=True)
    rows = [
        f"{user}::{item}::{1 + item % 5}::{978300000 + item}"
        for user in (1, 2)
        for item in (1, 2, 3, 4)
    ]
    (top / "ratings.dat").write_text("\n".join(rows) + "\n")
    (top / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::7007X\n")
    movies = [
        "1::Été (1995)::Comedy|Drama",
        "2::Two: the 2nd (2001)::Drama",
        "3::Three::Western|Drama",
        "4::Four (1980)::Comedy",
    ]
    (top / "movies.dat").write_bytes("\n".join(movies).encode("latin-1"))
    return top
