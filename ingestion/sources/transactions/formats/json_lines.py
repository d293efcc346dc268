"""JSON Lines: lines as columns of text by their shapes or, one by one, as typed rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ingestion.sources.transactions import contract
from ingestion.sources.transactions.formats.chunk import FEW, Left, Record
from ingestion.sources.transactions.formats.json_shapes import Shape
from ingestion.sources.transactions.formats.lines import Block, Readable, blocks
from ingestion.sources.transactions.inputs.source_file import SourceFile
from ingestion.sources.transactions.mapping.rules import Rules

SHAPES = 8  # kept from block to block


class JsonChunk:
    """Lines of JSON; piece n is line n of the block."""

    def __init__(self, block: Block, rules: Rules) -> None:
        self.block, self.first, self.last = block, block.first, block.last
        self._rules = rules

    def pieces(self) -> np.ndarray:
        return np.arange(len(self.block))

    def texts(self, left: Left, shapes: list[Shape]) -> Iterator[pa.Table]:
        """The values of the lines of each shape known, then of new ones, which are remembered."""
        for shape in list(shapes):
            before = len(left.pieces)
            yield shape.texts(self.block, left.pieces, self._rules)
            if len(left.pieces) < before / 2:  # the commonest shape goes first
                shapes.insert(0, shapes.pop(shapes.index(shape)))
            if len(left.pieces) < FEW:
                return
        for _ in range(4):
            first = (Shape.of(self.block.line(at), self._rules) for at in left.pieces[:20].tolist())
            new = next((shape for shape in first if shape and shape not in shapes), None)
            if new is None:
                return
            before = len(left.pieces)
            yield new.texts(self.block, left.pieces, self._rules)
            if before - len(left.pieces) >= FEW:
                shapes.insert(0, new)
                del shapes[SHAPES:]

    def fields(self, at: int) -> Record | None:
        line = self.block.line(at)
        return contract.fields_of_json(line, self._rules.names) if line.strip() else None

    def raw(self, at: int) -> bytes:
        return self.block.line(at)


def json_chunks(file: SourceFile, data: Readable) -> Iterator[JsonChunk]:
    for block in blocks(data, file.name, file.landed_bytes, file.landed_lines):
        yield JsonChunk(block, file.rules)
