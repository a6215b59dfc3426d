"""torchvision, importable beside a torch without CUDA.

torchvision's wheels are built for CUDA. Beside a CPU build of torch their compiled operators cannot load, and then the
import ends in "operator torchvision::nms does not exist". Declaring the schemas that its Python code refers to lets the
rest, of which we use the networks, import and work.
"""

from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's schemas live as long as it does


def load() -> ModuleType:
    if torch.version.cuda is None and not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
    import torchvision.models

    module: ModuleType = torchvision
    return module
