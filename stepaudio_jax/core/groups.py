"""Things that belong together because they share a name, through others too."""

from collections.abc import Hashable, Iterable, Sequence


def joined(names: Sequence[Iterable[Hashable]]) -> list[int]:
  """Of each thing the first one that it is joined with, by union and find.

  Args:
    names: of each thing. Two that share one are joined, and whatever is joined with
      either.

  Returns:
    One index a thing; two are joined where theirs are equal.
  """
  parent = [*range(len(names))]

  def first(thing: int) -> int:
    while parent[thing] != thing:
      parent[thing] = parent[parent[thing]]
      thing = parent[thing]
    return thing

  owner: dict[Hashable, int] = {}
  for thing, own in enumerate(names):
    for name in own:
      one, other = sorted((first(thing), first(owner.setdefault(name, thing))))
      parent[other] = one
  return [first(thing) for thing in range(len(names))]
