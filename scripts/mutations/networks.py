"""Twenty networks for the mutation suite: trained ones, and others whose random weights keep their values in range."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NETWORKS", "TRAINED", "Example"]

Example: TypeAlias = tuple[nn.Module, tuple[Any, ...]]


# -- trained -----------------------------------------------------------------------------------------------------------


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)


def _trained(model: nn.Module, steps: int = 150) -> Example:
    """Trained on scikit-learn's digits, which takes a second or two."""
    images, labels = _digits()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        rows = torch.randint(0, 1500, (64,), generator=torch.Generator().manual_seed(step))
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), (images[1700:1704],)


def digits_mlp() -> Example:
    """Digits by two layers with GELU and a normalised middle."""
    return _trained(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 10), nn.Softmax(-1))
    )


def digits_cnn() -> Example:
    """Digits by convolutions with BatchNorm, hard swish and pooling."""
    return _trained(
        nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.Hardswish(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.AvgPool2d(2, padding=1),
            nn.Flatten(),
            nn.Linear(144, 10),
        )
    )


class _Rows(nn.Module):
    """Digits read row by row."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.recurrent = cell(8, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.recurrent(x.flatten(1, 2))[0][:, -1]).log_softmax(-1)
        return out


def digits_lstm() -> Example:
    """Digits by a bidirectional LSTM over their rows."""
    return _trained(_Rows(nn.LSTM), 80)


def digits_gru() -> Example:
    """Digits by a bidirectional GRU over their rows."""
    return _trained(_Rows(nn.GRU), 80)


def digits_attention() -> Example:
    """Digits by a transformer layer over their rows."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(8, 32)
            self.place = nn.Parameter(torch.randn(8, 32) * 0.1)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
            self.head = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.layer(self.embed(x.flatten(1, 2)) + self.place).mean(1))
            return out

    return _trained(Net(), 80)


def digit_detector() -> Example:
    """The gallery's trained detector with its suppression."""
    from scripts.gallery import digits

    model, inputs = digits.detector()
    return model.eval(), inputs


def digit_heads() -> Example:
    """Its logits and boxes before the suppression."""
    from scripts.gallery import digits

    class Heads(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits, boxes = self.model.candidates(images)
            return logits.sigmoid(), boxes

    model, inputs = digits.detector()
    return Heads(model).eval(), inputs


def face_proposals() -> Example:
    """MTCNN's first stage on the astronaut."""
    from scripts.gallery import mtcnn

    return mtcnn.p_stage()


def face_refinement() -> Example:
    """MTCNN's second stage on the crops of the first."""
    from scripts.gallery import mtcnn

    return mtcnn.r_stage()


# -- random, calibrated ------------------------------------------------------------------------------------------------


def _calibrated(model: nn.Module, *inputs: Tensor) -> Example:
    """BatchNorm statistics of these very inputs, so that no layer fades or saturates."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        model(*inputs)
    return model.eval(), inputs


def mobile_block() -> Example:
    """Depthwise convolutions, hard swish and squeeze-excitation."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
            self.depth = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
            self.squeeze = nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid())
            self.out = nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.depth(x)
            out: Tensor = self.out(x + y * self.squeeze(y.mean((2, 3), keepdim=True)))
            return out

    return _calibrated(Net(), torch.randn(2, 3, 32, 32))


def unet() -> Example:
    """Down, up by bilinear interpolation with aligned corners, and across."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ELU())
            self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.InstanceNorm2d(12, affine=True), nn.SiLU())
            self.up = nn.ConvTranspose2d(12, 8, 2, 2)
            self.out = nn.Conv2d(16, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            d = self.down(x)
            u = torch.cat([self.up(self.deep(d)), d], 1)
            u = F.interpolate(self.out(u), scale_factor=2, mode="bilinear", align_corners=True)
            return u.sigmoid()

    return _calibrated(Net(), torch.randn(1, 3, 24, 24))


def diffusion_block() -> Example:
    """GroupNorm, SiLU, a time embedding by sines, nearest upsampling."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(4, 16, eps=1e-6)
            self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.time = nn.Linear(16, 16)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            waves = torch.exp(-torch.arange(8) * 0.6) * t[:, None]
            time = self.time(torch.cat([waves.sin(), waves.cos()], -1))[:, :, None, None]
            y: Tensor = x + self.second(F.silu(self.first(F.silu(self.norm(x)))) + time)
            return F.interpolate(y, scale_factor=2, mode="nearest")

    return _calibrated(Net(), torch.randn(2, 16, 8, 8), torch.tensor([3.0, 40.0]))


def llama_block() -> Example:
    """RMSNorm, rotary attention with a causal mask, a gated MLP."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.second = nn.RMSNorm(32, eps=1e-5), nn.RMSNorm(32, eps=1e-5)
            self.qkv, self.out = nn.Linear(32, 96, bias=False), nn.Linear(32, 32, bias=False)
            self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

        def turned(self, x: Tensor) -> Tensor:
            angles = torch.arange(x.shape[2])[:, None] * (10000.0 ** (-torch.arange(4) / 4))
            cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
            return x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
            y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            y = self.second(x)
            out: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
            return out

    return _calibrated(Net(), torch.randn(2, 6, 32))


def super_resolution() -> Example:
    """Convolutions with PReLU and pixel shuffle."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.PReLU(16), nn.Conv2d(16, 9, 3, padding=1), nn.PixelShuffle(3), nn.Tanh()
    )
    return _calibrated(model, torch.rand(1, 1, 12, 12))


def warp() -> Example:
    """A spatial transformer: a small net says how an image is sampled."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look = nn.Sequential(nn.Conv2d(2, 6, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
            self.theta = nn.Linear(24, 6)

        def forward(self, x: Tensor) -> Tensor:
            unit = torch.tensor([1.0, 0, 0, 0, 1.0, 0])
            theta = (self.theta(self.look(x)) * 0.3 + unit).view(-1, 2, 3)
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            return F.grid_sample(x, grid, align_corners=False, padding_mode="border")

    return _calibrated(Net(), torch.rand(2, 2, 16, 16))


def keypoints() -> Example:
    """A heatmap, its peaks by max pooling, the best by topk: after the suppression most candidates are zeros."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3, 1, 1)
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            heat = self.net(x).sigmoid()
            heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
            scores, places = heat.flatten(2).topk(12)
            return scores, torch.stack([places % x.shape[3], places // x.shape[3]], -1)

    return _calibrated(Net(), torch.randn(1, 3, 16, 16))


def grid_detector() -> Example:
    """A detection head that decodes boxes and scores, the scores near zero."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.SiLU(), nn.Conv2d(12, 9, 1))

        def forward(self, x: Tensor) -> Tensor:
            raw = self.net(x).flatten(2)
            places = torch.arange(raw.shape[2])
            centres = (raw[:, :2].sigmoid() * 2 - 0.5 + torch.stack([places % 16, places // 16])) * 8
            sizes = (raw[:, 2:4].sigmoid() * 2) ** 2 * 24
            return torch.cat([centres, sizes, (raw[:, 4:] - 9).sigmoid()], 1)

    return _calibrated(Net(), torch.randn(1, 3, 32, 32))


def word_bag() -> Example:
    """Embeddings, their mean over the words that count, a linear head."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, ids: Tensor) -> Tensor:
            counts = (ids != 0).float()[..., None]
            mean = (self.words(ids) * counts).sum(1) / counts.sum(1).clamp(min=1)
            out: Tensor = self.head(mean.tanh()).softmax(-1)
            return out

    return _calibrated(Net(), torch.randint(0, 50, (3, 9)))


def quantiser() -> Example:
    """Rounds to steps of an eighth, floors an index, and picks rows by it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.table = nn.Linear(8, 8), nn.Parameter(torch.randn(16, 4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.round(self.first(x) * 8) / 8
            index = torch.floor(y.sigmoid() * 15.99).long()
            return y, self.table[index[:, 0]] - y[:, :4]

    return _calibrated(Net(), torch.randn(6, 8))


def half_inside() -> Example:
    """A bfloat16 middle whose result is handed out as float32."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Linear(12, 16), nn.Linear(16, 16).bfloat16()
            self.last = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.middle(self.first(x).bfloat16()))
            out: Tensor = self.last(y.float())
            return out

    return _calibrated(Net(), torch.randn(4, 12))


TRAINED: dict[str, Callable[[], Example]] = {
    one.__name__: one
    for one in (
        digits_mlp,
        digits_cnn,
        digits_lstm,
        digits_gru,
        digits_attention,
        digit_detector,
        digit_heads,
        face_proposals,
        face_refinement,
    )
}
NETWORKS: dict[str, Callable[[], Example]] = {
    **TRAINED,
    **{
        one.__name__: one
        for one in (
            mobile_block,
            unet,
            diffusion_block,
            llama_block,
            super_resolution,
            warp,
            keypoints,
            grid_detector,
            word_bag,
            quantiser,
            half_inside,
        )
    },
}


@functools.cache
def built(name: str) -> Example:
    """A network with its inputs; the same every time."""
    torch.manual_seed(0)
    return NETWORKS[name]()
