"""Crossover and mutation that respect the space, on many networks at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa_deploy.spaces.costs import Genes
from ofa_deploy.spaces.space import SearchSpace

STAGEWISE = 0.5
"""Share of the children that take whole stages from their parents, instead of single blocks."""

Bools = npt.NDArray[np.bool_]


class Variation:
    """Makes children of parents, and random networks.

    Args:
        space: of the networks.
        allowed: indices of the resolutions that children may have.
        rate: probability that a stage's depth, a block's kernel or expansion, a width or the resolution is drawn anew.
        rng: of everything random.
    """

    def __init__(self, space: SearchSpace, allowed: Sequence[int], rate: float, rng: np.random.Generator) -> None:
        self._space, self._allowed, self._rate, self._rng = space, np.array(allowed), rate, rng

    def random(self, number: int) -> Genes:
        """Genes of random networks, shape (number, columns)."""
        return self._space.sample(self._rng, number, [self._space.resolutions[i] for i in self._allowed])

    def children(self, a: Genes, b: Genes) -> Genes:
        """A child of each pair of parents, shape (n, columns), as the parents `a` and `b` have it.

        Resolution, widths and stages' depths come from either parent; so does each block, or each stage as a whole. A
        block that the depth asks for and neither parent has is drawn at random.
        """
        from_a = self._hit(0.5, a.shape)
        child = np.where(from_a, a, b)
        stagewise = self._hit(STAGEWISE, (len(a), 1))
        for stage, columns in zip(self._space.stages, self._space.stage_columns, strict=True):
            first = self._hit(0.5, (len(a), 1))
            blocks_a, blocks_b = a[:, columns], b[:, columns]
            blocks = np.where(stagewise, np.where(first, blocks_a, blocks_b), child[:, columns])
            blocks = np.where(blocks > 0, blocks, np.maximum(blocks_a, blocks_b))
            depth = np.where(first[:, 0], (blocks_a > 0).sum(axis=1), (blocks_b > 0).sum(axis=1))
            redrawn = self._hit(self._rate, (len(a),))
            depth = np.where(redrawn, self._rng.choice(stage.depths, len(a)), depth)
            blocks = self._mutated(blocks, len(stage.kernels), len(stage.expands))
            child[:, columns] = np.where(np.arange(stage.depths[-1]) < depth[:, None], blocks, 0)
        for i, choices in enumerate(self._space.widths, 1 + len(self._space.slots)):
            child[:, i] = np.where(
                self._hit(self._rate, (len(a),)), self._rng.integers(0, len(choices), len(a)), child[:, i]
            )
        redrawn = self._hit(self._rate, (len(a),))
        child[:, 0] = np.where(redrawn, self._rng.choice(self._allowed, len(a)), child[:, 0])
        return child

    def _mutated(self, blocks: Genes, kernels: int, expands: int) -> Genes:
        """Blocks whose kernel and expansion are drawn anew now and then, apart or together; missing ones always."""
        missing = blocks == 0
        kernel, expand = np.divmod(np.maximum(blocks, 1) - 1, expands)
        both = self._hit(self._rate / 2, blocks.shape) | missing
        kernel = np.where(
            both | self._hit(self._rate / 2, blocks.shape), self._rng.integers(0, kernels, blocks.shape), kernel
        )
        expand = np.where(
            both | self._hit(self._rate / 2, blocks.shape), self._rng.integers(0, expands, blocks.shape), expand
        )
        return (1 + kernel * expands + expand).astype(np.int16)

    def _hit(self, probability: float, shape: tuple[int, ...]) -> Bools:
        """True at random places of an array."""
        return self._rng.random(shape, np.float32) < probability
