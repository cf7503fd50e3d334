"""What tests of training share: a folder of data, a model, and a server of runs."""

import pytest

from tools.fault_tools import FaultServer
from tools.run_tools import Workspace, make_workspace


@pytest.fixture(scope="session")
def server(tmp_path_factory, sentencepiece_file):
    """Runs with faults, see `FaultServer`, whose import takes as long as ten runs; its folder is shared, so runs need
    names of their own."""
    started = FaultServer(make_workspace(tmp_path_factory.mktemp("faults"), sentencepiece_file))
    yield started
    started.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("runs"), sentencepiece_file)


@pytest.fixture(scope="module")
def base(workspace):
    """A model that can do the task a little."""
    return workspace.finetune("base", max_steps=15, learning_rate=1e-2)
