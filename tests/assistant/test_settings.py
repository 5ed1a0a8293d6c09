from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from assistant.settings import TrainingSettings, load_settings


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("retrieval: {dense_weight: 0.2, limit: 7}\n")
    settings = load_settings({"AI_ASSISTANT_RETRIEVAL__DENSE_WEIGHT": "0.9"}, file)
    assert (settings.retrieval.dense_weight, settings.retrieval.limit, settings.retrieval.rrf_k) == (
        0.9,
        7,
        60,
    )


def test_usual_names_are_read_and_secrets_hidden() -> None:
    settings = load_settings({"DATABASE_URL": "postgresql://u:hunter2@h/d", "QDRANT_URL": "http://q"})
    assert settings.postgres.url is not None
    assert settings.postgres.url.get_secret_value().endswith("@h/d")
    assert settings.qdrant.url == "http://q"
    assert "hunter2" not in repr(settings)


def test_unknown_key_is_named_with_its_section() -> None:
    with pytest.raises(ConfigurationError, match=r"retrieval\.dense_weigt"):
        load_settings({"AI_ASSISTANT_RETRIEVAL__DENSE_WEIGT": "0.5"})


def test_missing_file_and_bad_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml does not exist"):
        load_settings({"AI_ASSISTANT_CONFIG": str(tmp_path / "nowhere.yaml")})
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml is not valid YAML"):
        load_settings({}, bad)
    bad.write_text("- a")
    with pytest.raises(ConfigurationError, match="must hold a mapping"):
        load_settings({}, bad)


def test_listening_beyond_loopback_needs_authentication() -> None:
    with pytest.raises(ConfigurationError, match=r"security\.auth"):
        load_settings({"AI_ASSISTANT_SERVE__HOST": "0.0.0.0"})
    opened = {"AI_ASSISTANT_SERVE__HOST": "0.0.0.0", "AI_ASSISTANT_SECURITY__AUTH": "api_key"}
    assert load_settings(opened).serve.host == "0.0.0.0"


def test_overrides_win_and_home_is_absolute() -> None:
    settings = load_settings({"AI_ASSISTANT_HOME": "x"}, overrides={"retrieval": {"limit": 3}})
    assert settings.retrieval.limit == 3
    assert settings.home.is_absolute()


def test_workers_share_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert TrainingSettings().torch_threads == 4
    assert TrainingSettings(workers=2).torch_threads == 2
    assert TrainingSettings(workers=9).torch_threads == 1
    assert TrainingSettings(threads=3, workers=2).torch_threads == 3
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert TrainingSettings().torch_threads == 8
