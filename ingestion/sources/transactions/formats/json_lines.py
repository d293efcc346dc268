"""JSON Lines: lines as columns of text by their shapes or, one by one, as typed rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import Decimals
from ingestion.sources.transactions.formats.chunk import FEW, Left
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import Block, Readable, blocks
from ingestion.sources.transactions.inputs.source_file import SourceFile

SHAPES = 8  # kept from block to block


class JsonChunk:
    """Lines of JSON; piece n is line n of the block."""

    def __init__(self, block: Block) -> None:
        self.block, self.first, self.last = block, block.first, block.last

    def pieces(self) -> np.ndarray:
        return np.arange(len(self.block))

    def texts(self, left: Left, shapes: list[Shape]) -> Iterator[pa.Table]:
        """The values of the lines of each shape known, then of new ones, which are remembered."""
        for shape in list(shapes):
            before = len(left.pieces)
            yield shape.texts(self.block, left.pieces)
            if len(left.pieces) < before / 2:  # the commonest shape goes first
                shapes.insert(0, shapes.pop(shapes.index(shape)))
            if len(left.pieces) < FEW:
                return
        for _ in range(4):
            first = (Shape.of(self.block.line(at)) for at in left.pieces[:20].tolist())
            new = next((shape for shape in first if shape and shape not in shapes), None)
            if new is None:
                return
            before = len(left.pieces)
            yield new.texts(self.block, left.pieces)
            if before - len(left.pieces) >= FEW:
                shapes.insert(0, new)
                del shapes[SHAPES:]

    def row(self, at: int, decimals: Decimals) -> tuple | None:
        line = self.block.line(at)
        return contract.row_of_json(line, decimals) if line.strip() else None

    def amount(self, at: int) -> Any:
        return contract.fields_of_json(self.block.line(at))[0].get("amount")

    def raw(self, at: int) -> bytes:
        return self.block.line(at)


def json_chunks(file: SourceFile, data: Readable) -> Iterator[JsonChunk]:
    for block in blocks(data, file.name, file.landed_bytes, file.landed_lines):
        yield JsonChunk(block)
