"""The random generators of this process. Images owe them nothing, see data/keyed.py; a layer may, such as dropout."""

import random
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """All of them, so that whatever draws from one draws the same in each run of a configuration."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


class Generators:
    """Part of a TrainState. Every worker seeds its own alike and draws alike, so rank 0's are everyone's."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and texts only."""
        kind, key, *rest = np.random.get_state()
        version, words, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "numpy": [kind, torch.from_numpy(np.asarray(key, np.int64)), *rest],
            "python": [version, list(words), gauss],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"].cpu())
        kind, key, *rest = state["numpy"]
        np.random.set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
