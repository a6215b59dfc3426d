"""torchvision loads beside a torch without CUDA, as often as one likes."""

from hvdtrain import torchvision


def test_loading_twice_gives_the_same_working_module() -> None:
    module = torchvision.load()
    assert torchvision.load() is module
    assert module.__name__ == "torchvision"
    assert callable(module.models.resnet50)
