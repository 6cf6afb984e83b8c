"""Item vectors of one or two runs on a plane: python src/embedding_map.py runs=[<before CAL>,<after CAL>]."""

from twotower.cli import command

if __name__ == "__main__":
    command("twotower.embedding_map.embedding_map", "embedding_map")
