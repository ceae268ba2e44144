"""A small staged network: two gated blocks and a head, like every graph that is streamed, at a size for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memrt.export.graph_parts import Affine, LayerNorm
from memrt.export.streaming.stages import Stages, exhaust
from memrt.export.streaming.stream import Unit

WIDTH, HIDDEN, DEPTH, OUT = 32, 64, 2, 16
INPUTS, OUTPUTS = ("x",), ("y",)


class Source(nn.Module):
    """The weights as a checkpoint would hold them: one block of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)


class Block(nn.Module):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self.norm, self.up, self.down = LayerNorm(source.norm), Affine(source.up), Affine(source.down)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.silu(self.up(self.norm(x))))


class Network(nn.Module):
    def __init__(self, blocks: list[Source], head: nn.Linear) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(source) for source in blocks)
        self.head = Affine(head)

    def stages(self, x: Tensor) -> Stages:
        for number in range(len(self.layers)):
            yield f"layers.{number}", x
            x = self.layers[number](x)  # looked up now: a streamed pass has mounted it
        yield "head", x
        return (self.head(x),)

    def forward(self, x: Tensor) -> Tensor:
        return exhaust(self.stages(x))[0]


def checkpoint(seed: int = 0) -> tuple[list[Source], nn.Linear]:
    torch.manual_seed(seed)
    return [Source() for _ in range(DEPTH)], nn.Linear(WIDTH, OUT)


def units(blocks: list[Source], head: nn.Linear) -> list[Unit]:
    built = [Unit(f"layers.{number}", lambda source=source: Block(source)) for number, source in enumerate(blocks)]
    return [*built, Unit("head", lambda: Affine(head))]
