"""The helper that runs two processes."""

import pytest

from tests.conftest import in_two_processes


def second_fails(rank):
    if rank == 1:
        raise OSError("the disk is full")
    return rank


@pytest.mark.slow
def test_a_process_that_dies_ends_the_wait(tmp_path):
    with pytest.raises(ChildProcessError, match="without a result"):
        in_two_processes(second_fails, tmp_path / "rendezvous")
