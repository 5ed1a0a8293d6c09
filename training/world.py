"""The workers that share one optimizer step: one alone, or those of torch.distributed."""

from typing import Protocol

import torch


class World(Protocol):
    rank: int
    size: int

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over all workers; every worker must call it."""
        ...


class Alone:
    rank = 0
    size = 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


class Distributed:
    """The process group that Ray Train's torch backend has set up."""

    def __init__(self) -> None:
        import torch.distributed as group

        self._group = group
        self.rank: int = group.get_rank()
        self.size: int = group.get_world_size()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self._group.all_reduce(values)
        return values
