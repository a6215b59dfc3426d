"""What was taken for what: exact counts by class, added up over the workers as whole numbers."""

from dataclasses import dataclass

import torch

from hvdtrain.distributed.comm import Comm


@dataclass(frozen=True)
class Confusion:
    counts: torch.Tensor  # (classes, classes) int64: images of the row's class that were taken for the column's
    among_five: torch.Tensor  # (classes,) int64: images whose own class is one of the five likeliest

    @classmethod
    def of(cls, classes: int) -> "Confusion":
        return cls(torch.zeros(classes, classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64))

    def add(self, labels: torch.Tensor, best: torch.Tensor) -> None:
        """Count one batch.

        Args:
            labels: (n,) int64.
            best: (n, up to 5) int64, the likeliest classes of each image, the likeliest first.
        """
        labels, best = labels.cpu(), best.cpu()
        ones = torch.ones_like(labels)
        self.counts.index_put_((labels, best[:, 0]), ones, accumulate=True)
        self.among_five.index_put_((labels,), (best == labels[:, None]).any(1).long(), accumulate=True)

    def add_up(self, comm: Comm) -> None:
        """Become the counts of all workers. Collective."""
        for name, counts in (("confusion", self.counts), ("among five", self.among_five)):
            comm.wait(comm.start_sum(counts, name))

    @property
    def images(self) -> list[int]:
        """Of each class."""
        return [int(count) for count in self.counts.sum(1)]

    @property
    def top1(self) -> list[int]:
        """Images of each class that were taken for it."""
        return [int(count) for count in self.counts.diagonal()]

    @property
    def top5(self) -> list[int]:
        return [int(count) for count in self.among_five]

    def worst(self) -> list[int]:
        """All classes that have images, the one with the least top-1 accuracy first."""
        images, top1 = self.images, self.top1
        there = [label for label, count in enumerate(images) if count]
        return sorted(there, key=lambda label: (top1[label] / images[label], -images[label], label))

    def pairs(self) -> list[tuple[int, int, int]]:
        """(class, what it was taken for, images) of all that went wrong, the most frequent first."""
        rows, columns = self.counts.nonzero(as_tuple=True)
        found = zip(rows.tolist(), columns.tolist(), self.counts[rows, columns].tolist(), strict=True)
        return sorted((each for each in found if each[0] != each[1]), key=lambda each: (-each[2], each[0], each[1]))
