from typing import Any

import pytest

from assistant.errors import ConfigurationError
from serve_app.canary import Canary, read_user_config


@pytest.mark.parametrize(("config", "share"), [({"canary_share": 0.2}, 0.2), ({"canary_share": 1}, 1.0)])
def test_the_share_is_taken(config: Any, share: float) -> None:
    canary = Canary()
    canary.apply(config)
    assert (canary.share(), canary.refused) == (share, None)


@pytest.mark.parametrize("config", [None, {}, {"canary_share": None}])
def test_nothing_leaves_it_to_the_table(config: Any) -> None:
    canary = Canary()
    canary.apply({"canary_share": 0.2})
    canary.apply(config)
    assert canary.share() is None


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"canary_share": 1.5}, "canary_share"),
        ({"canary_share": -0.1}, "canary_share"),
        ({"canary_share": "half"}, "canary_share"),
        ({"canary_share": True}, "canary_share"),
        ({"canary_share": float("nan")}, "canary_share"),
        ({"canary_shares": 0.1}, "canary_shares"),
        ([0.1], "user_config"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_changes_nothing(config: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        read_user_config(config)
    canary = Canary()
    canary.apply({"canary_share": 0.2})
    canary.apply(config)
    assert canary.share() == 0.2
    assert named in str(canary.refused)
