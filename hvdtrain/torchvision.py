"""torchvision, importable beside a torch without CUDA.

torchvision's usual wheels are built for CUDA. Beside a CPU build of torch their compiled operators cannot load, and
then the import ends in "operator torchvision::nms does not exist". Declaring the schemas that its Python code refers to
lets the rest, of which we use the networks and the transforms, import and work.
"""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's schemas live as long as it does


def load() -> ModuleType:
    if torch.version.cuda is None and _built_for_cuda() and not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
    import torchvision.models
    import torchvision.transforms.v2

    module: ModuleType = torchvision
    return module


def _built_for_cuda() -> bool:
    """Told from its version, such as 0.28.0+cu130: importing it to ask is what does not work yet."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    return "+cu" in Path(spec.origin).with_name("version.py").read_text()
