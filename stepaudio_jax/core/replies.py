"""A generated reply is a thought and an answer; here is where it is cut."""

THOUGHT_END = "</think>"


def split_reply(text: str, thinking: bool = True) -> tuple[str, str | None]:
  """(thought, answer) of a generated reply; the answer follows the last </think>.

  Without a </think> the reply is a thought that never closes, with the answer None, or
  if `thinking` is False, as in a prompt with an empty thought, all answer. White space
  around both is dropped.
  """
  think, closed, answer = text.rpartition(THOUGHT_END)
  if closed:
    return think.strip().removeprefix("<think>").strip(), answer.strip()
  if thinking:
    return text.strip().removeprefix("<think>").strip(), None
  return "", text.strip()
