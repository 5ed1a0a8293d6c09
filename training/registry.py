"""The model registry: versions of an adapter with card, lineage and decision, and who is champion.

The only module that touches MLflow's registry. A version is an adapter folder as an artifact of the run that
trained it. The aliases `champion`, `challenger` and `previous` say which version is which; every change can be
repeated after a crash and then changes nothing more.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from assistant.errors import Conflict, InvalidInput, NotFound, Unavailable
from training import tracking

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
CONTENT, CARD, DECISION = "content", "card", "decision"
"""Tags of a version."""
FLAVOR = "peft_lora"
ADAPTER = "adapter"
NEEDED = ("adapter_config.json", "adapter_model.safetensors")
TAG_CHARS = 4_500
"""Longer tags are cut by some stores; the whole record is an artifact of the run."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """One registered adapter. `card` is what was given with it: base, rank, data hash, code version, metrics."""

    model: str
    number: int
    run_id: str | None
    card: Mapping[str, Any]
    decision: Mapping[str, Any] | None
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        """The adapter's name wherever it serves: `answerer-3`."""
        return f"{self.model}-{self.number}"


def _answered(
    method: "Callable[Concatenate[Registry, P], T]",
) -> "Callable[Concatenate[Registry, P], T]":
    """Turns an MLflow that fails or does not answer into Unavailable."""

    def call(self: "Registry", /, *args: P.args, **kwargs: P.kwargs) -> T:
        from mlflow.exceptions import MlflowException

        try:
            return method(self, *args, **kwargs)
        except (MlflowException, OSError) as error:
            raise Unavailable(
                f"MLflow at {self.tracking_uri} failed: {str(error)[:300]}",
                hint="Look at `ai-assistant status`, then run it again: nothing is done twice.",
            ) from error

    return cast("Callable[Concatenate[Registry, P], T]", wraps(method)(call))


class Registry:
    """Of one model name. Every method raises Unavailable while MLflow does not answer."""

    def __init__(self, tracking_uri: str | None, model: str = "answerer") -> None:
        if tracking_uri is None:
            raise Unavailable(
                "No MLflow is configured, so adapters cannot be registered.",
                hint="Set MLFLOW_TRACKING_URI, or start the local stack with `ai-assistant up`.",
            )
        self.tracking_uri, self.model = tracking_uri, model
        self._cached: Any = None

    @_answered
    def register(self, folder: Path, card: Mapping[str, Any], run_id: str) -> int:
        """The version of this adapter, made now or earlier: the same files and run give the same number.

        InvalidInput names a file that `folder` lacks.
        """
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise InvalidInput(f"{folder} holds no adapter: {missing[0]} is missing.", field="folder")
        content = _content(folder, run_id)
        client = self._client
        self._ensure_model()
        for known in self._versions():
            if known.tags.get(CONTENT) == content:
                return int(known.version)
        client.log_artifacts(run_id, str(folder), f"{ADAPTER}/{content[:12]}/files")
        with tempfile.TemporaryDirectory() as scratch:
            _write_model(Path(scratch), run_id, card)
            client.log_artifacts(run_id, scratch, f"{ADAPTER}/{content[:12]}")
        tags = {
            CONTENT: content,
            CARD: _tag(card),
            **{
                key: str(card[key])[:500]
                for key in ("base_model", "data_hash", "code_version")
                if key in card
            },
        }
        made = client.create_model_version(
            self.model, f"runs:/{run_id}/{ADAPTER}/{content[:12]}", run_id, tags=tags
        )
        return int(made.version)

    @_answered
    def version(self, number: int) -> Version:
        """NotFound when there is no such version."""
        found = self._find(number)
        if found is None:
            raise NotFound(f"The model {self.model} has no version {number}.")
        return self._version(found)

    @_answered
    def versions(self) -> list[Version]:
        """All, newest first."""
        return [self._version(self._find(int(v.version))) for v in self._versions()]

    @_answered
    def champion(self) -> Version | None:
        """None while the base serves."""
        return self._aliased(CHAMPION)

    @_answered
    def challenger(self) -> Version | None:
        return self._aliased(CHALLENGER)

    @_answered
    def previous(self) -> Version | None:
        """What a rollback would bring back; None for the base."""
        return self._aliased(PREVIOUS)

    @_answered
    def challenge(self, number: int) -> Version:
        """This version is the challenger from now on."""
        self.version(number)
        self._client.set_registered_model_alias(self.model, CHALLENGER, str(number))
        return self.version(number)

    @_answered
    def withdraw(self) -> None:
        """There is no challenger any more."""
        self._drop(CHALLENGER)

    @_answered
    def promote(self, number: int) -> Version:
        """This version is the champion, the old one is kept as `previous`."""
        self.version(number)
        now = self._aliased(CHAMPION)
        if now is None or now.number != number:
            # First what would be lost: a crash in between leaves the old champion under both names.
            if now is None:
                self._drop(PREVIOUS)
            else:
                self._client.set_registered_model_alias(self.model, PREVIOUS, str(now.number))
            self._client.set_registered_model_alias(self.model, CHAMPION, str(number))
        challenger = self._aliased(CHALLENGER)
        if challenger is not None and challenger.number == number:
            self._drop(CHALLENGER)
        return self.version(number)

    @_answered
    def rollback(self) -> Version | None:
        """`previous` is the champion again, or the base (None) when there is none. Raises Conflict when the
        base serves already."""
        now, before = self._aliased(CHAMPION), self._aliased(PREVIOUS)
        if now is None:
            raise Conflict(
                f"The base of {self.model} serves already: there is nothing to go back to.",
                hint="Promote a version first.",
            )
        if before is None:
            self._drop(CHAMPION)
            return None
        self._client.set_registered_model_alias(self.model, CHAMPION, str(before.number))
        self._drop(PREVIOUS)
        return self.version(before.number)

    @_answered
    def follow(self, number: int | None) -> None:
        """Bring the aliases after what serves: this version is the champion, or the base (None)."""
        now = self._aliased(CHAMPION)
        if number is not None:
            if now is None or now.number != number:
                self.promote(number)
        elif now is not None:
            self._drop(CHAMPION)
            self._drop(PREVIOUS)

    @_answered
    def record_decision(self, number: int, decision: Mapping[str, Any]) -> None:
        """Keep why this version was promoted, rejected or rolled back: a tag, and whole with its run."""
        found = self.version(number)
        text = json.dumps(dict(decision), sort_keys=True, default=str)
        if found.run_id is not None:
            self._client.log_dict(
                found.run_id, json.loads(text), f"{ADAPTER}/decision-{self.model}-{number}.json"
            )
        short = text if len(text) <= TAG_CHARS else json.dumps({"see": "the artifact of the run"})
        self._client.set_model_version_tag(self.model, str(number), DECISION, short)

    @_answered
    def download(self, number: int, target: Path) -> Path:
        """Put the files of a version into `target`, which must not exist or be empty."""
        import mlflow

        found = self.version(number)
        source = self._client.get_model_version_download_uri(self.model, str(found.number))
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{source}/files", dst_path=scratch, tracking_uri=self.tracking_uri
            )
            for file in Path(path).iterdir():
                file.replace(target / file.name)
        return target

    @property
    def _client(self) -> Any:
        if self._cached is None:
            self._cached = tracking.client_of(self.tracking_uri)
            if self._cached is None:
                raise Unavailable(
                    f"MLflow at {self.tracking_uri} does not answer.",
                    hint="Look at `ai-assistant status`. Nothing is lost: run it again.",
                )
        return self._cached

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _versions(self) -> list[Any]:
        found = self._client.search_model_versions(f"name = '{self.model}'", max_results=1000)
        return sorted(found, key=lambda v: -int(v.version))

    def _find(self, number: int) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(self.model, str(number))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _aliased(self, alias: str) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self.model, alias)
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise
        return self._version(found)

    def _drop(self, alias: str) -> None:
        if self._aliased(alias) is not None:
            self._client.delete_registered_model_alias(self.model, alias)

    def _version(self, found: Any) -> Version:
        return Version(
            model=self.model,
            number=int(found.version),
            run_id=found.run_id or None,
            card=_json(found.tags.get(CARD)) or {},
            decision=_json(found.tags.get(DECISION)),
            aliases=tuple(sorted(found.aliases or ())),
        )


def _content(folder: Path, run_id: str) -> str:
    digest = hashlib.sha256(run_id.encode())
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(f"\n{file.name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _write_model(folder: Path, run_id: str, card: Mapping[str, Any]) -> None:
    """MLflow's description of a model: its signature (a chat in, a text out) and how it was made."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "messages")]),
        outputs=Schema([ColSpec(DataType.string, "text")]),
    )
    model = Model(artifact_path=ADAPTER, run_id=run_id, signature=signature, metadata=dict(card))
    model.add_flavor(FLAVOR, data="files", base_model=str(card.get("base_model", "")))
    model.save(str(folder / "MLmodel"))
    (folder / "card.json").write_text(json.dumps(dict(card), indent=1, default=str) + "\n", encoding="utf-8")


def _tag(card: Mapping[str, Any]) -> str:
    """The card as a tag; without its metrics, which the artifact has, when it would be too long."""
    text = json.dumps(dict(card), sort_keys=True, default=str)
    if len(text) <= TAG_CHARS:
        return text
    return json.dumps({k: v for k, v in card.items() if k != "metrics"}, sort_keys=True, default=str)


def _json(text: str | None) -> dict[str, Any] | None:
    try:
        return dict(json.loads(text)) if text else None
    except ValueError:
        return None
