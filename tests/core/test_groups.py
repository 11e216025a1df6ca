"""What is joined, against a search of the graph."""

import numpy as np

from stepaudio_jax.core import groups


def test_chains_join():
  names = [{"a"}, {"c"}, {"a", "b"}, {"d"}, {"b", "e"}, set(), {"e"}]
  assert groups.joined(names) == [0, 1, 0, 3, 0, 5, 0]


def test_joined_as_a_search_finds_it():
  rng = np.random.default_rng(0)
  names = [set(rng.integers(80, size=2).tolist()) for _ in range(60)]
  found = groups.joined(names)
  for start in range(60):
    reached, waiting = set(), [start]
    while waiting:
      thing = waiting.pop()
      if thing not in reached:
        reached.add(thing)
        waiting += [k for k in range(60) if names[k] & names[thing]]
    assert reached == {k for k in range(60) if found[k] == found[start]}
    assert found[start] == min(reached)
  assert 2 < len(set(found)) < 60
