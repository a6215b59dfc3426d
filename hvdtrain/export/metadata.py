"""What an exported network says of itself: texts by name, those with structure as JSON."""

import json

from hvdtrain import __version__
from hvdtrain.config.schema import Config
from hvdtrain.provenance import revision
from hvdtrain.train.preprocessing import Preprocessing
from hvdtrain.train.trained import Trained


def metadata(found: Trained, config: Config, classes: tuple[str, ...], *, weights: str) -> dict[str, str]:
    """
    Args:
        classes: names in the order of the outputs.
        weights: whether they are the `weights` of the training or their `average`.
    """
    manifest, top1 = found.manifest, found.top1.get(weights)
    size = config.data.image_size
    return {
        "format": "pt",  # what safetensors' readers look for
        "model": config.model.name,
        "norm": config.model.norm,
        "weights": weights,
        "classes": json.dumps(classes, ensure_ascii=False),
        "input": f"images float32 (n, 3, {size}, {size}): RGB from 0 to 1, less mean, over std",
        "output": f"logits float32 (n, {len(classes)})",
        "preprocessing": json.dumps(Preprocessing.of(config).as_dict()),
        "config_digest": manifest.config_digest,
        "data_digest": manifest.data_digest,
        "step": str(manifest.step),
        "images_seen": str(manifest.images_seen),
        "epoch": "" if found.epoch is None else f"{found.epoch:.4f}",
        "top1": "" if top1 is None else repr(top1),
        "trained_by": json.dumps(dict(manifest.versions)),
        "hvdtrain": __version__,
        "commit": revision(),
    }
