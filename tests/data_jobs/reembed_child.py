"""A build in a process of its own, to be killed: it stops for good in its second batch of texts."""

import asyncio
import sys
import threading
from collections.abc import Sequence

from assistant.retrieval.embedders import Vectors, installed_embedder
from assistant.settings import Settings
from data_jobs import copy_stage
from data_jobs.reembed import reembed
from tests.data_jobs.embedding import DrawnEmbedder


class Stuck(DrawnEmbedder):
    def embed(self, texts: Sequence[str]) -> Vectors:
        if self.texts:
            sys.stdout.write("stuck\n")
            sys.stdout.flush()
            threading.Event().wait()
        return super().embed(texts)


def main() -> None:
    settings = Settings.model_validate_json(sys.stdin.read())
    copy_stage.CHUNKS_PER_CALL = 2
    asyncio.run(reembed(settings, "search_sources", installed_embedder(settings, "other-v2"), load=Stuck))


if __name__ == "__main__":
    main()
