"""Drawing from shuffled decks: balanced and repeatable."""

from collections.abc import Sequence

import numpy as np


class Dealer:
  """Deals from shuffled decks, one for each key: every value once, then again.

  A value dealt under a key is therefore uniform within that key to ±1.
  """

  def __init__(self, rng: np.random.Generator):
    self.rng = rng
    self._decks: dict[tuple, list] = {}

  def deal(self, items: Sequence, *key):
    """The next of `items` under this key (the same items for the same key)."""
    deck = self._decks.setdefault(key, [])
    if not deck:
      deck.extend(items[i] for i in self.rng.permutation(len(items)))
    return deck.pop()

  def chance(self, share: float) -> bool:
    return bool(self.rng.random() < share)

  def shuffled(self, items: Sequence) -> list:
    return [items[i] for i in self.rng.permutation(len(items))]


def dealer(seed: int, *purpose: int) -> Dealer:
  """A dealer of its own for a purpose, so that one plan part never moves another."""
  return Dealer(np.random.default_rng([seed, *purpose]))
