"""A state, copied out of the way of the next step."""

from typing import Any

import torch


class HostCopy:
    """A copy of a state in the host's memory, made again and again into the same tensors: fresh memory takes longer."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def of(self, tensors: dict[str, Any]) -> dict[str, Any]:
        copied: dict[str, Any] = self._copied(tensors, ())
        if any(tensor.is_pinned() for tensor in self._kept.values()):
            torch.cuda.synchronize()
        return copied

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(place, value.detach())
        if isinstance(value, dict):
            return {key: self._copied(inner, (*place, key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(inner, (*place, i)) for i, inner in enumerate(value))
        return value

    def _tensor(self, place: tuple[Any, ...], tensor: torch.Tensor) -> torch.Tensor:
        kept = self._kept.get(place)
        if kept is None or (kept.shape, kept.dtype, kept.stride()) != (tensor.shape, tensor.dtype, tensor.stride()):
            kept = self._kept[place] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return kept.copy_(tensor, non_blocking=True)
