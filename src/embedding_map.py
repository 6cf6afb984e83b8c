"""Item vectors of one or two runs on a plane: python src/embedding_map.py runs=[<before CAL>,<after CAL>]."""

from twotower.cli import command
from twotower.embedding_map import embedding_map

if __name__ == "__main__":
    command(embedding_map, "embedding_map")
