"""The tiny base, made once."""

from pathlib import Path

import pytest

from tests.training.tiny import make_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny") / "base")
