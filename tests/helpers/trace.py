"""Runs the train command and writes which functions of the package were called.

``python trace.py SRC OUTPUT SETTING …`` writes a JSON object: each function, such as
``losses/dat.py:forward``, with the callers of its first call.
"""

import json
import runpy
import sys
import threading
from pathlib import Path

stacks: dict[str, list[str]] = {}


def main(src: str, output: str, settings: list[str]) -> None:
    package = f"{src}/twotower/"

    def own(frame):
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if path.startswith(package) and not name.startswith("<"):
            return f"{path.removeprefix(package)}:{name}"
        return None

    def note(frame, event, _):
        name = own(frame) if event == "call" else None
        if name is None or name in stacks:
            return
        stack = []
        while frame:
            if own(frame):
                stack.insert(0, own(frame))
            frame = frame.f_back
        stacks[name] = stack

    sys.argv = ["train.py", *settings]
    sys.path.insert(0, src)
    sys.setprofile(note)
    threading.setprofile(note)
    runpy.run_path(f"{src}/train.py", run_name="__main__")
    sys.setprofile(None)
    Path(output).write_text(json.dumps(stacks))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
