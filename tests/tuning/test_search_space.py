"""Draws become settings, and settings of now become the first draw."""

from pathlib import Path

import optuna
import pytest

from assistant.errors import ConfigurationError
from assistant.settings import RetrievalSettings, TrainingSettings, load_settings
from tuning.fragment import write_fragment
from tuning.search_space import LoraSpace, RetrievalSpace, lora_settings, retrieval_settings


def test_lora_settings_come_back_as_their_draw() -> None:
    settings = TrainingSettings(rank=8, alpha=32, learning_rate=3e-4)
    draw = LoraSpace().start(settings)
    assert draw == {"rank": 8, "alpha_per_rank": 4.0, "learning_rate": 3e-4}
    assert lora_settings(draw, TrainingSettings()) == TrainingSettings(rank=8, alpha=32, learning_rate=3e-4)
    assert lora_settings({"rank": 4, "alpha_per_rank": 0.1, "learning_rate": 1e-3}, settings).alpha == 1


@pytest.mark.parametrize("changes", [{"rank": 5}, {"alpha": 7}, {"learning_rate": 1.0}])
def test_lora_settings_outside_the_space_are_no_start(changes: dict[str, float]) -> None:
    assert LoraSpace().start(TrainingSettings().model_copy(update=changes)) is None


def test_every_draw_of_retrieval_is_a_setting() -> None:
    space = RetrievalSpace(chunk_tokens=(120, 220))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = set()
    for _ in range(40):
        draw = space.draw(study.ask())
        settings = retrieval_settings(draw, RetrievalSettings())
        assert RetrievalSettings.model_validate(settings.model_dump()) == settings
        assert ("dense_weight" in draw) == (draw["fusion"] == "weighted")
        seen.add((draw["fusion"], draw["chunk_tokens"]))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        (RetrievalSettings(), True),
        (RetrievalSettings(dense_weight=1.0), True),
        (RetrievalSettings(dense_weight=0.33), False),
        (RetrievalSettings(candidates=30), False),
        (RetrievalSettings(fusion="rrf", rrf_k=60), True),
        (RetrievalSettings(fusion="rrf", rrf_k=1000), False),
    ],
)
def test_the_setting_of_now_is_tried_first_when_it_can_be(settings: RetrievalSettings, inside: bool) -> None:
    start = RetrievalSpace().start(settings, 220)
    assert (start is not None) == inside
    if start is not None:
        study = optuna.create_study()
        study.enqueue_trial(start)
        assert RetrievalSpace().draw(study.ask()) == start


def test_a_fragment_is_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    write_fragment(path, {"retrieval": {"dense_weight": 0.35}, "chunk": {"max_tokens": 120}}, ["Why."])
    settings = load_settings(environ={}, config_file=path)
    assert (settings.retrieval.dense_weight, settings.chunk.max_tokens) == (0.35, 120)
    assert path.read_text().startswith("# Why.\n")
    with pytest.raises(ConfigurationError, match="dense_weight"):
        write_fragment(path, {"retrieval": {"dense_weight": 7}}, [])
