"""The tests' own short cut: a graph whose weights were written over is the graph traced anew."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from traced_once import TracedOnce

from murank_export.graphs.onnx_file import _export


class Product(nn.Module):
    """Two weights, and a table that is part of the graph."""

    table: Tensor

    def __init__(self, seed: int, table: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Parameter(torch.randn(16, 16))
        self.second = nn.Parameter(torch.randn(16, 16))
        self.register_buffer("table", torch.full((16,), table))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(torch.matmul(x, self.first), self.second) * self.table


class Counted:
    """Trace, and count."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, module: nn.Module, file: Path) -> None:
        self.times += 1
        rows = torch.export.Dim("rows", min=1, max=64)
        _export(module, (torch.randn(3, 16),), file, ["x"], ["y"], ({0: rows},))


def written(trace: Callable[..., None], module: nn.Module, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    trace(module, folder / "graph.onnx")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_other_weights_are_written_over_and_other_tables_traced(tmp_path: Path) -> None:
    count = Counted()
    once = TracedOnce(count, tmp_path)
    first = written(once, Product(0), tmp_path / "first")
    second = written(once, Product(1), tmp_path / "second")
    assert written(once, Product(0), tmp_path / "again") == first
    assert count.times == 1
    assert second == written(count, Product(1), tmp_path / "anew")
    assert second != first
    written(once, Product(1, table=2.0), tmp_path / "table")
    assert count.times == 3


def test_what_the_graph_holds_once_for_two_is_traced_again(tmp_path: Path) -> None:
    alike = Product(0)
    alike.second.data = alike.first.data.clone()
    count = Counted()
    once = TracedOnce(count, tmp_path)
    for place, module in enumerate((alike, Product(1), alike)):
        written(once, module, tmp_path / f"{place}")
        assert count.times == (1, 2, 2)[place]
