"""A server of runs that is started once for all tests of faults: its import takes as long as ten runs."""

import pytest

from fault_tools import FaultServer
from run_tools import make_workspace


@pytest.fixture(scope="session")
def server(tmp_path_factory, sentencepiece_file):
    """Runs with faults, see `FaultServer`; its folder is shared, so runs need names of their own."""
    started = FaultServer(make_workspace(tmp_path_factory.mktemp("faults"), sentencepiece_file))
    yield started
    started.close()
