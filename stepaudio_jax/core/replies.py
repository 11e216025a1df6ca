"""A generated reply is a thought and an answer; here is where it is cut."""


def split_reply(text: str, thinking: bool = True) -> tuple[str, str | None]:
  """(thought, answer) of a generated reply; the answer follows the last </think>.

  A thought that never closes has the answer None. Set `thinking` as in the prompt:
  without it the reply is all answer. White space around both is dropped.
  """
  think, closed, answer = text.rpartition("</think>")
  if closed:
    return think.strip().removeprefix("<think>").strip(), answer.strip()
  if thinking:
    return text.strip().removeprefix("<think>").strip(), None
  return "", text.strip()
