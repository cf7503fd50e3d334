"""A machine without a GPU, the warnings of PaddleNLP's log, and files of settings."""

import json
import logging

import pytest

from glm.options.run_config import RUN_CONFIG_NAME


@pytest.fixture(autouse=True)
def gpus(monkeypatch):
    """A switch: tests run as on a machine without a GPU until `gpus(True)`."""

    def there_are(answer: bool) -> None:
        monkeypatch.setattr("glm.runtime.device.has_gpu", lambda: answer)

    there_are(False)
    return there_are


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What is logged as a warning."""
    found: list[str] = []
    monkeypatch.setattr("paddlenlp.utils.log.logger.warning", found.append)
    monkeypatch.setattr(logging.getLogger("PaddleNLP"), "warning", found.append)  # where prediction goes without it
    return found


@pytest.fixture
def write(tmp_path):
    """A factory: `write({...})` or `write("text")`, the path of a configuration file."""

    def write(settings: dict | str) -> str:
        path = tmp_path / "run.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def checkpoint(tmp_path):
    """A factory: `checkpoint(option=value, ...)`, the name of a folder with such a run's settings."""

    def make(**settings) -> str:
        (tmp_path / RUN_CONFIG_NAME).write_text(json.dumps(settings), encoding="utf-8")
        return str(tmp_path)

    return make
