"""How a validation image becomes a picture, in numbers that other programs understand."""

from dataclasses import asdict, dataclass
from typing import Any

from hvdtrain.config.schema import Config


@dataclass(frozen=True)
class Preprocessing:
    """torchvision's Resize(resize), CenterCrop(crop) and Normalize(mean, std) of an RGB picture from 0 to 1."""

    resize: int  # shorter side, pixels
    crop: int  # height and width, pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    antialias: bool = True

    @classmethod
    def of(cls, config: Config) -> "Preprocessing":
        data = config.data
        return cls(round(data.eval_resize * data.image_size), data.image_size, data.mean, data.std)

    def __str__(self) -> str:
        return f"resize {self.resize}, crop {self.crop}, {self.interpolation}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
