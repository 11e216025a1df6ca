"""Questions without audio: counting with digit words and facts told in text."""

from stepaudio_jax.data.world import words
from stepaudio_jax.data.world.deal import Dealer, dealer

_TOLD = {
  "name": ("My name is {}.", "What is my name?", "Your name is {}."),
  "city": ("I live in {}.", "Where do I live?", "You live in {}."),
  "colour": ("My coat is {}.", "Which colour is my coat?", "Your coat is {}."),
}


def rows(count: int, seed: int) -> list[dict]:
  """`count` dialogue rows of text, the kinds of question in turn."""
  deal = dealer(seed, 3)
  makers = (_sum, _difference, _larger, _last, _backwards, _told, _told_earlier)
  return [
    {"id": f"text-{index:05d}", **makers[index % len(makers)](deal)}
    for index in range(count)
  ]


def corpus() -> list[str]:
  """Its sentences, for the tokenizer."""
  return [
    part
    for row in rows(280, seed=0)
    for message in row["messages"]
    for part in (message["content"][0]["text"], message.get("think"))
    if part
  ]


def _row(turns, answer: str, kind: str, deal: Dealer) -> dict:
  """`turns`: (human text, thought or None, reply); a fifth go without a thought."""
  messages = []
  for asked, thought, reply in turns:
    messages.append(_message("human", asked))
    messages.append(_message("assistant", reply))
    if thought is not None and not deal.chance(0.2):
      messages[-1]["think"] = thought
  meta = {"task": "text", "kind": kind, "clips": [], "turns": len(turns)}
  return {"messages": messages, "answer": answer, "meta": meta}


def _message(role: str, text: str) -> dict:
  return {"role": role, "content": [{"type": "text", "text": text}]}


def _sum(deal: Dealer) -> dict:
  total = deal.deal(range(1, 10), "sum")
  first = int(deal.rng.integers(0, total + 1))
  a, b, c = (words.DIGITS[d] for d in (first, total - first, total))
  turn = (f"What is {a} plus {b}?", f"I add {a} and {b} to get {c}.", f"It is {c}.")
  return _row([turn], c, "sum", deal)


def _difference(deal: Dealer) -> dict:
  left = deal.deal(range(9), "difference")
  taken = int(deal.rng.integers(1, 10 - left))
  a, b, c = (words.DIGITS[d] for d in (left + taken, taken, left))
  turn = (f"What is {a} minus {b}?", f"I take {b} from {a} to get {c}.", f"It is {c}.")
  return _row([turn], c, "difference", deal)


def _larger(deal: Dealer) -> dict:
  more = deal.deal(range(1, 10), "larger")
  less = int(deal.rng.integers(0, more))
  pair = deal.shuffled([words.DIGITS[more], words.DIGITS[less]])
  best, other = words.DIGITS[more], words.DIGITS[less]
  asked = f"Which is larger, {pair[0]} or {pair[1]}?"
  return _row(
    [(asked, f"{best} is more than {other}.", f"It is {best}.")], best, "larger", deal
  )


def _last(deal: Dealer) -> dict:
  digits = _three(deal)
  asked = f"What is the last digit of {' '.join(digits)}?"
  thought = f"After {digits[1]} comes {digits[2]}."
  return _row([(asked, thought, f"It is {digits[2]}.")], digits[2], "last", deal)


def _backwards(deal: Dealer) -> dict:
  digits = _three(deal)
  turned = " ".join(reversed(digits))
  asked = f"Say {' '.join(digits)} backwards."
  thought = f"I start from {digits[2]}, then {digits[1]}."
  return _row([(asked, thought, f"It is {turned}.")], turned, "backwards", deal)


def _three(deal: Dealer) -> list[str]:
  return [words.DIGITS[d] for d in deal.rng.permutation(10)[:3]]


def _told(deal: Dealer) -> dict:
  slot = deal.deal(tuple(_TOLD), "told")
  value = deal.deal(words.FACTS[slot], "told", slot)
  fact, asked, reply = _TOLD[slot]
  thought = f"The text says {value}."
  turn = (f"{fact.format(value)} {asked}", thought, reply.format(value))
  return _row([turn], value, "told", deal)


def _told_earlier(deal: Dealer) -> dict:
  slot = deal.deal(tuple(_TOLD), "earlier")
  value = deal.deal(words.FACTS[slot], "earlier", slot)
  fact, asked, reply = _TOLD[slot]
  between = _sum(deal)["messages"]
  first = (fact.format(value), None, "I will remember that.")
  middle = (between[0]["content"][0]["text"], None, between[1]["content"][0]["text"])
  last = (asked, f"At the start I read {value}.", reply.format(value))
  return _row([first, middle, last], value, "told earlier", deal)
