"""Tests, with one thread each: pytest-xdist runs as many processes as there are cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, NumPy and SciPy are imported
