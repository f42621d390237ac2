"""The CSPup generator and the two discriminators that it was tried against, for images of 64 or 128 pixels a side.

A block's channels are split in two halves, after the cross stage partial networks of Wang et al. 2020 (arXiv
1911.11929): the left is upsampled linearly, the right by a small network, and the two are added. As first written
(`plain`) the right branch, the only one that is not linear, starts with a fraction of a percent of the left's signal.
"""

from collections import OrderedDict

from torch import Tensor, nn

SLOPE = 0.2
"""Of every LeakyReLU."""


class CSPup(nn.Module):
    """Features N×`inputs`×H×W to N×`outputs`×H'×W', upsampled by transposed convolutions `kernel`/`stride`/`padding`.

    block: where norm and activation are: `plain`, `inside`, `after` or `unnormalised`, as `generator.block` has them.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, block: str) -> None:
        super().__init__()
        self.halves = [inputs // 2, inputs - inputs // 2]
        self.left = nn.ConvTranspose2d(self.halves[0], outputs, kernel, stride, padding, bias=False)
        self.right = nn.Sequential(
            nn.Conv2d(self.halves[1], outputs, 1),
            *_inside(outputs, block),
            nn.ConvTranspose2d(outputs, outputs, kernel, stride, padding, bias=False),
            nn.Conv2d(outputs, outputs, 1),
            *_inside(outputs, block),
            nn.Conv2d(outputs, outputs, 1),
        )
        after: list[nn.Module] = [nn.BatchNorm2d(outputs)] if block == "after" else []
        if block in ("after", "unnormalised"):
            after.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.after = nn.Sequential(*after)

    def forward(self, features: Tensor) -> Tensor:
        """Upsampled features, N×outputs×H'×W'."""
        left, right = features.split(self.halves, dim=1)
        upsampled: Tensor = self.after(self.left(left) + self.right(right))
        return upsampled


def _inside(width: int, block: str) -> list[nn.Module]:
    match block:
        case "inside":
            return [nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE, inplace=True)]
        case "unnormalised":
            return [nn.LeakyReLU(SLOPE, inplace=True)]
    return [nn.ReLU(inplace=True)]


class CSPupGenerator(nn.Module):
    """Latent z, N×Z, to images N×C×S×S in [-1, 1]."""

    def __init__(self, z_dim: int, base: int, block: str, image_size: int, channels: int) -> None:
        super().__init__()
        side, width = 4, base * image_size // 8
        blocks = OrderedDict[str, nn.Module](up4=CSPup(z_dim, width, 4, 1, 0, block))
        while side < image_size // 2:
            side *= 2
            blocks[f"up{side}"] = CSPup(width, width // 2, 4, 2, 1, block)
            width //= 2
        blocks[f"up{image_size}"] = nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False)
        blocks["tanh"] = nn.Tanh()
        self.blocks = nn.Sequential(blocks)

    def forward(self, z: Tensor) -> Tensor:
        """Images in [-1, 1], N×C×S×S, of latents N×Z."""
        images: Tensor = self.blocks(z[:, :, None, None])
        return images


class CSPupDiscriminator(nn.Module):
    """Images N×C×S×S in [-1, 1] to logits N; above zero means real. The two that were tried against the generator.

    Convolutions 4/2/1 without bias from `base` channels on, doubling down to 4x4, then one 4/1/0 to the logit; batch
    norm after all but the first and the last. With `pooled`, the second layer is AvgPool2d(4, 2, 1) instead, the first
    one has 2·base channels, and it is normalised too.
    """

    def __init__(self, base: int, image_size: int, channels: int, *, batch_norm: bool, pooled: bool) -> None:
        super().__init__()
        blocks = OrderedDict[str, nn.Module]()
        wide, side = channels, image_size
        while side > 4:
            if pooled and side == image_size // 2:
                blocks[f"pool{side}"] = nn.AvgPool2d(4, 2, 1)
            else:
                narrow, wide = wide, max(2 * base if pooled else base, base * image_size // side)
                blocks[f"down{side}"] = nn.Conv2d(narrow, wide, 4, 2, 1, bias=False)
                if batch_norm and (pooled or side != image_size):
                    blocks[f"norm{side}"] = nn.BatchNorm2d(wide)
                blocks[f"relu{side}"] = nn.LeakyReLU(SLOPE, inplace=True)
            side //= 2
        blocks["logit"] = nn.Conv2d(wide, 1, 4, 1, 0, bias=False)
        self.blocks = nn.Sequential(blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, N, of images N×C×S×S in [-1, 1]."""
        logits: Tensor = self.blocks(images).flatten()
        return logits
