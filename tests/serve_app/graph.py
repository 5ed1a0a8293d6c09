"""The real graph on the shared cluster: embedder, llama.cpp, Postgres, Qdrant Edge; and its processes."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
import psutil

from assistant.retrieval.sparse import Bm25Encoder
from assistant.settings import QdrantSettings, RetrievalSettings
from assistant.stores.vector_wire import connect
from assistant.stores.vectors import ChunkPoint, VectorStore
from tests.fixtures_qdrant import drop_everything

APP = "graph"
PASSAGES = {
    "KubePersistentVolumeFillingUp": "When KubePersistentVolumeFillingUp fires, delete old snapshots and grow "
    "the volume claim. Then watch the usage for an hour.",
    "EtcdMembersDown": "When etcd members are down, check the disks of the control plane first. "
    "Replace a broken member before you restart the others.",
    "CertificateExpiry": "Certificates are renewed thirty days before they expire. "
    "Renew by hand with the command of the certificate manager when the renewal fails.",
}


@dataclass
class Graph:
    """A running graph. `llm` is its model's name."""

    url: str
    llm: str

    def client(self, timeout_s: float = 300) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def async_client(self, timeout_s: float = 300) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=timeout_s, trust_env=False)

    def pids(self, deployment: str) -> set[int]:
        """The processes of a deployment's replicas."""
        return {p.pid for p in self._replicas(f"ray::ServeReplica:{APP}:{deployment}")}

    def kill(self, deployment: str) -> int:
        """SIGKILL its only replica; the process id that is gone."""
        (pid,) = self.pids(deployment)
        os.kill(pid, signal.SIGKILL)
        return pid

    def _replicas(self, title: str) -> Iterator[psutil.Process]:
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    yield process
            except psutil.Error:
                continue

    def running(self) -> int:
        """Requests inside the model, by /health."""
        with self.client() as client:
            models = client.get("/health").json()["models"]
        return int(models[0]["info"].get("running", 0))

    def wait_until_well(self, limit_s: float = 240) -> None:
        """Until every check is ready, as an operator sees it."""
        deadline = time.monotonic() + limit_s
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                with self.client(10) as client:
                    report = client.get("/health")
                last = report.text
                if report.status_code == 200 and report.json()["status"] == "ok":
                    return
            except (httpx.HTTPError, ValueError) as error:
                last = repr(error)
            time.sleep(0.2)
        raise TimeoutError(f"the graph did not get well: {last}")


async def empty_qdrant(settings: QdrantSettings) -> None:
    client = connect(settings)
    try:
        await drop_everything(client)
    finally:
        await client.close()


async def store_passages(graph: Graph, settings: QdrantSettings) -> dict[str, UUID]:
    """Ingest the passages above with the graph's own embeddings: title → chunk id."""
    retrieval = RetrievalSettings()
    encoder = Bm25Encoder(retrieval)
    async with graph.async_client() as http:
        body = {"model": "all-MiniLM-L6-v2", "input": list(PASSAGES.values())}
        made = (await http.post("/v1/embeddings", json=body)).raise_for_status().json()["data"]
    ids = {title: uuid5(NAMESPACE_URL, title) for title in PASSAGES}
    points = [
        ChunkPoint(
            ids[title],
            vector["embedding"],
            encoder.document(f"{title} {text}"),
            {
                "text": text,
                "title": title,
                "url": f"https://runbooks.example/{title}",
                "headings": ["Mitigation"],
                "start": 0,
                "end": len(text),
                "chunk_index": 0,
                "token_count": len(text.split()),
                "document_id": str(ids[title]),
                "source_id": str(UUID(int=7)),
                "source": "runbooks",
                "source_type": "search_sources",
                "external_id": f"{title}.md",
                "content_type": "text/markdown",
                "content_hash": title,
                "version": None,
                "acl": ["public"],
                "embedder": "all-MiniLM-L6-v2",
                "metadata": {},
            },
        )
        for (title, text), vector in zip(PASSAGES.items(), made, strict=True)
    ]
    client = connect(settings)
    store = VectorStore(settings, client)
    try:
        await store.ensure_collection("search_sources", "all-MiniLM-L6-v2", 384, {"test": True})
        await store.upsert("search_sources", points)
    finally:
        await store.close()
    return ids
