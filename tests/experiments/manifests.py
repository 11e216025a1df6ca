"""A made-up manifest of digits and sounds: who speaks and records is known by hand."""

from stepaudio_jax.rewards.parts import numerals

SPEAKERS = ("ann", "bob", "cid", "dot")
SOUNDS = {"rain": ("r1", "r2", "r3"), "bell": ("b1", "b2"), "wind": ("r1",)}
DIGIT_QUESTION = "Which digit is it?"
STRING_QUESTION = "Which digits are they?"


def row(name, question, choices, answer, task, **meta):
  fields = {"id": name, "file": f"{name}.wav", "question": question}
  fields |= {"choices": choices, "answer": answer}
  speaker = meta.pop("speaker", None)
  return fields | {"speaker": speaker, "meta": {"set": "made", "task": task, **meta}}


def digit(speaker, n):
  word, other = numerals.DIGITS[n], numerals.DIGITS[(n + 1) % 10]
  told = {"speaker": speaker, "transcript": word}
  return row(f"{speaker}{n}", DIGIT_QUESTION, [word, other], word, "digit", **told)


def string(speaker, *digits):
  words = " ".join(numerals.DIGITS[n] for n in digits)
  told = {"speaker": speaker, "transcript": words}
  answer, task = " ".join(map(str, digits)), "digit_string"
  return row(f"string-{speaker}", STRING_QUESTION, None, answer, task, **told)


def sound(author, label):
  others = [one for one in SOUNDS if one != label]
  name = f"{label}-{author}"
  return row(name, "What is it?", [label, *others], label, "sound_event", author=author)


def rows():
  """40 digits, 5 strings (one of two speakers), 6 sounds and a question besides."""
  digits = [digit(speaker, n) for speaker in SPEAKERS for n in range(10)]
  strings = [string(speaker, 1, 2) for speaker in SPEAKERS]
  sounds = [sound(author, label) for label, by in SOUNDS.items() for author in by]
  mood = row("mood", "How is it?", ["calm", "angry"], "calm", "emotion", speaker="ann")
  return [*digits, *strings, *sounds, mood]
