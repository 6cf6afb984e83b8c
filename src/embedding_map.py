"""Item vectors of one or two runs on a plane: python src/embedding_map.py runs=[<before CAL>,<after CAL>]."""

from twotower import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

    from twotower.run.cli import command

    command("twotower.embedding_map.embedding_map", "embedding_map")
