"""Small networks whose channels meet in different ways, with channels that must be free and weights that must stay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGES, VECTORS, SEQUENCES = (3, 3, 8, 8), (3, 6), (3, 5, 16)


@dataclass
class Case:
    shape: tuple[int, ...]  # of the input
    forward: Callable[[Any, Tensor], Tensor]
    modules: dict[str, nn.Module]
    free: dict[str, int]  # layers whose input channels are free, and how many move together
    frozen: dict[str, str]  # layers whose inputs keep their order, and a word of the reason


class Net(nn.Module):
    def __init__(self, case: Case):
        super().__init__()
        self.function = case.forward
        for name, module in case.modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def two(a: nn.Module, c: nn.Module, **others: nn.Module) -> dict[str, nn.Module]:
    return {"a": a, "c": c, **others}


def written(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a[:, :4] = b
    return a


def squeezed(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return pooled(net.c(y * net.b(y.mean(dim=(2, 3), keepdim=True)).sigmoid()))


def attended(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.c(net.b(y, y, y)[0])


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs)


CASES = {
    "in a row": lambda: Case(
        VECTORS,
        lambda n, x: n.c(F.gelu(n.b(F.relu(n.a(x))))),
        two(linear(6, 8), linear(12, 2), b=linear(8, 12)),
        {"b": 8, "c": 12},
        {"a": "outside"},
    ),
    "siblings": lambda: Case(
        VECTORS,
        lambda n, x: (y := n.a(x).relu()).sum(1, keepdim=True) + n.b(y) + n.c(y),
        two(linear(6, 8), linear(8, 2), b=linear(8, 2)),
        {"b": 8, "c": 8},
        {},
    ),
    "coparents": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c((n.a(x) + n.b(x)).relu())),
        two(conv(3, 8), conv(8, 2), b=conv(3, 8, 1)),
        {"c": 8},
        {},
    ),
    "concatenated": lambda: Case(
        VECTORS,
        lambda n, x: n.c(torch.cat([n.a(x), n.b(x)], 1)),
        two(linear(6, 8), linear(20, 2), b=linear(6, 12)),
        {"c": 8},
        {},
    ),
    "concatenated and added": lambda: Case(
        VECTORS,
        lambda n, x: n.c(torch.cat([n.a(x), n.b(x)], 1) + n.d(x)),
        two(linear(6, 8), linear(20, 2), b=linear(6, 12), d=linear(6, 20)),
        {"c": 8},
        {},
    ),
    "batch norm": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)).relu_())),
        two(conv(3, 8), conv(8, 2), b=nn.BatchNorm2d(8)),
        {"c": 8},
        {},
    ),
    "instance norm": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)))),
        two(conv(3, 8), conv(8, 2), b=nn.InstanceNorm2d(8, affine=True)),
        {"c": 8},
        {},
    ),
    "layer norm": lambda: Case(
        SEQUENCES,
        lambda n, x: n.c(n.b(n.a(x)).flatten(1)),
        two(linear(16, 8), linear(40, 2), b=nn.LayerNorm((5, 8))),
        {"c": 8},
        {},
    ),
    "RMSNorm": lambda: Case(
        SEQUENCES,
        lambda n, x: n.c(n.b(n.a(x))),
        two(linear(16, 8), linear(8, 2), b=nn.RMSNorm(8)),
        {"c": 8},
        {},
    ),
    "group norm": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)))),
        two(conv(3, 8), conv(8, 2), b=nn.GroupNorm(2, 8)),
        {},
        {"c": "group_norm"},
    ),
    "one member that disables all": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c((n.a(x) + n.b(n.d(x))).relu())) + pooled(n.e(n.a(x))),
        two(conv(3, 8), conv(8, 2), b=nn.GroupNorm(2, 8), d=conv(3, 8), e=conv(8, 2)),
        {},
        {"c": "group_norm", "e": "group_norm"},
    ),
    "depthwise": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)))),
        two(conv(3, 8), conv(8, 2, 1), b=conv(8, 8, groups=8)),
        {"c": 8},
        {},
    ),
    "depthwise with a multiplier": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.d(n.b(n.a(x))))),
        two(conv(3, 8), conv(16, 2, 1), b=conv(8, 16, groups=8), d=nn.BatchNorm2d(16)),
        {"c": 8},
        {},
    ),
    "grouped": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)))),
        two(conv(3, 16), conv(24, 2), b=conv(16, 24, groups=2)),
        {"b": 8, "c": 12},
        {},
    ),
    "transposed": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.b(n.a(x)))),
        two(conv(3, 8), conv(12, 2), b=nn.ConvTranspose2d(8, 12, 2, 2)),
        {"c": 12},
        {},
    ),
    "flattened": lambda: Case(
        IMAGES,
        lambda n, x: n.c(F.max_pool2d(n.a(x), 4).flatten(1)),
        two(conv(3, 8), linear(32, 2)),
        {"c": 8},
        {},
    ),
    "pooled places": lambda: Case(
        VECTORS,
        lambda n, x: n.c(F.max_pool2d(n.a(x).view(3, 4, 4, 4), 2).flatten(1)),
        two(linear(6, 64), linear(16, 2)),
        {"c": 4},
        {},
    ),
    "causal tokens": lambda: Case(
        SEQUENCES,
        lambda n, x: n.c(
            F.scaled_dot_product_attention(*[n.a.weight[None, None]] * 3, is_causal=True).mean(2) + x[:, :1]
        ),
        two(linear(16, 5), linear(16, 2)),
        {},
        {"a": "outside"},
    ),
    "looked up": lambda: Case(
        VECTORS,
        lambda n, x: n.c(n.b((x > 0).long()).mean(1)),
        two(linear(6, 8), linear(8, 2), b=nn.Embedding(2, 8)),
        {"c": 8},
        {},
    ),
    "squeeze and excitation": lambda: Case(
        IMAGES, squeezed, two(conv(3, 8), conv(8, 2), b=conv(8, 8, 1)), {"b": 8, "c": 8}, {}
    ),
    "channel shuffle": lambda: Case(
        IMAGES,
        lambda n, x: pooled(n.c(n.a(x).view(3, 2, 4, 8, 8).transpose(1, 2).reshape(3, 8, 8, 8))),
        two(conv(3, 8), conv(8, 2)),
        {"c": 2},
        {},
    ),
    "gated halves": lambda: Case(
        VECTORS,
        lambda n, x: n.c(F.silu((y := n.a(x).chunk(2, -1))[0]) * y[1]) + n.b(F.glu(n.d(x))),
        two(linear(6, 16), linear(8, 2), b=linear(8, 2), d=linear(6, 16)),
        {"b": 8, "c": 8},
        {},
    ),
    "in place": lambda: Case(
        VECTORS,
        lambda n, x: n.c(written(n.a(x).relu_().add_(n.b(x)), n.d(x))),
        two(linear(6, 8), linear(8, 2), b=linear(6, 8), d=linear(6, 4)),
        {"c": 4},
        {},
    ),
    "one channel picked out": lambda: Case(
        VECTORS,
        lambda n, x: n.c((y := n.a(x)) * y[:, 3:4]),
        two(linear(6, 8), linear(8, 2)),
        {"c": 3},
        {},
    ),
    "overlapping slices": lambda: Case(
        VECTORS,
        lambda n, x: n.c((y := n.a(x))[:, :6] + y[:, 1:7]),
        two(linear(6, 8), linear(6, 2)),
        {},
        {"c": "two ways"},
    ),
    "attention": lambda: Case(
        SEQUENCES,
        attended,
        two(linear(16, 16), linear(16, 2), b=nn.MultiheadAttention(16, 2, batch_first=True)),
        {"c": 16, "b.out_proj": 8},
        {},
    ),
    "encoder layer": lambda: Case(
        SEQUENCES,
        lambda n, x: n.c(n.b(n.a(x))),
        two(linear(16, 16), linear(16, 2), b=nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)),
        {"c": 16, "b.linear1": 16, "b.linear2": 32},
        {},
    ),
    "einsum": lambda: Case(
        SEQUENCES,
        lambda n, x: n.c(torch.einsum("bti,bsi->bts", n.a(x), n.b(x)).softmax(-1) @ n.a(x)),
        two(linear(16, 8), linear(8, 2), b=linear(16, 8)),
        {"c": 8},
        {},
    ),
    "multiplied with themselves": lambda: Case(
        VECTORS,
        lambda n, x: n.c(((y := n.a(x))[:, :, None] * y[:, None, :]).view(3, 2, 4, 2, 4).relu().flatten(1)),
        two(linear(6, 8), linear(64, 2)),
        {"c": 4},
        {},
    ),
    "padded": lambda: Case(
        VECTORS, lambda n, x: n.c(F.pad(n.a(x), (0, 4))), two(linear(6, 8), linear(12, 2)), {}, {"c": "padded"}
    ),
    "cumulative": lambda: Case(
        VECTORS, lambda n, x: n.c(n.a(x).cumsum(1)), two(linear(6, 8), linear(8, 2)), {}, {"c": "cumsum"}
    ),
    "turned round": lambda: Case(
        VECTORS, lambda n, x: n.c(n.a(x).flip(1)), two(linear(6, 8), linear(8, 2)), {}, {"c": "flip"}
    ),
    "turned round, then divided": lambda: Case(
        VECTORS,
        lambda n, x: n.c(n.a(x).flip(1)[:, :4]) + n.b(n.d(x).flip(1).view(3, 2, 4).sum(1)),
        two(linear(6, 8), linear(4, 2), b=linear(4, 2), d=linear(6, 8)),
        {},
        {"b": "flip", "c": "flip"},
    ),
    "numbered": lambda: Case(
        VECTORS,
        lambda n, x: n.c(n.a(x)[:, torch.arange(8)]),
        two(linear(6, 8), linear(8, 2)),
        {},
        {"c": "picked out"},
    ),
    "bilinear": lambda: Case(
        VECTORS,
        lambda n, x: n.c(n.b(n.a(x), n.a(x))),
        two(linear(6, 8), linear(12, 2), b=nn.Bilinear(8, 8, 12)),
        {},
        {"c": "trilinear"},
    ),
    "answer": lambda: Case(
        VECTORS,
        lambda n, x: (n.c(y := n.a(x)), y)[1] + n.b(n.a(x)),
        two(linear(6, 8), linear(8, 2), b=linear(8, 8)),
        {},
        {"b": "answer"},
    ),
}
