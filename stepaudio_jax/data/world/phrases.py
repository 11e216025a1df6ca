"""How the world's people and their listener put things: questions, thoughts, answers.

An answer says its label word once and no other option of its task; a question
names all options or none.
"""

from stepaudio_jax.data.world import words

QUESTIONS = {
  "pitch": (
    "Is the voice low, middle or high?",
    "What is the pitch of the voice?",
    "At which pitch does the voice talk: low, middle or high?",
    "Listen to the pitch. How would you call it?",
    "Tell me about the pitch.",
  ),
  "rate": (
    "Is the speech slow, normal or fast?",
    "What is the pace of the speech?",
    "At which pace does the voice talk: slow, normal or fast?",
    "Listen to the pace. How would you call it?",
    "Tell me about the pace.",
  ),
  "speakers": (
    "Do you hear one speaker or two?",
    "How many speakers are there?",
    "How many people talk in this clip?",
    "Is it one voice or two?",
    "Count the speakers.",
  ),
  "emotion": (
    "Do I sound calm, excited, sad or angry?",
    "How do I sound to you?",
    "What do you think I feel?",
    "Can you hear my mood?",
    "Tell me about my mood: calm, excited, sad or angry?",
  ),
  "digits": (
    "Which digits do you hear?",
    "What digits did I say?",
    "Please repeat the digits.",
    "Write down the digits.",
    "Tell me the digits in order.",
  ),
}
FOLLOW_UPS = {
  "pitch": ("And what was the pitch?", "How was the pitch?"),
  "rate": ("And what about the pace?", "At which pace was it said?"),
}
MEMORY_QUESTIONS = {
  "digits": (
    "Which digits did I say at the start?",
    "What were the digits in my first message?",
  ),
  "name": (
    "Which name did I say at the start?",
    "What was the name in my first message?",
  ),
  "city": (
    "Which city did I say at the start?",
    "What was the city in my first message?",
  ),
  "colour": (
    "Which colour did I say at the start?",
    "What was the colour in my first message?",
  ),
}
TELLINGS = (
  "Please remember what I say.",
  "Keep this in mind for later.",
  "I will ask you about this later.",
)
ACKNOWLEDGEMENTS = (
  "I will remember that.",
  "I will keep it in mind.",
  "I have noted it.",
)
OPENINGS = (
  ("Hi, may I tell you something?", "Of course, please go on."),
  ("Do you have a moment for me?", "Yes, I am listening."),
)
SYSTEM = (
  "You are a careful listener.",
  "You are a friendly voice assistant.",
)

# Acoustic evidence for a label; every thought names features one can hear.
THOUGHTS = {
  ("pitch", "low"): (
    "The voice sits deep, with a dark tone.",
    "I hear a deep tone and a heavy voice.",
  ),
  ("pitch", "middle"): (
    "The pitch stays in the centre, an ordinary tone.",
    "I hear an ordinary voice with a centred tone.",
  ),
  ("pitch", "high"): (
    "The voice is bright, with a thin tone.",
    "I hear a light tone and a bright voice.",
  ),
  ("rate", "slow"): (
    "The words are stretched, with long sounds.",
    "The voice drags and the words are long.",
  ),
  ("rate", "normal"): (
    "The words come at a steady and usual pace.",
    "The voice talks at a comfortable, steady pace.",
  ),
  ("rate", "fast"): (
    "The words come quickly, with hardly any pause.",
    "The voice is in a rush and the words are short.",
  ),
  ("speakers", "one"): (
    "The voice stays the same in both parts.",
    "Both parts have the same tone of voice.",
  ),
  ("speakers", "two"): (
    "The voice changes between the parts.",
    "The second part has a different tone of voice.",
  ),
  ("emotion", "calm"): (
    "The voice is gentle and the pace is relaxed.",
    "I hear a relaxed voice with a gentle tone.",
  ),
  ("emotion", "excited"): (
    "The pitch jumps and the voice is lively.",
    "I hear a lively voice with a jumping tone.",
  ),
  ("emotion", "sad"): (
    "The voice is quiet and flat, with a weak tone.",
    "I hear a flat, quiet voice and drawn words.",
  ),
  ("emotion", "angry"): (
    "The voice is loud and hard, with a sharp tone.",
    "I hear a sharp, loud voice and a hard pace.",
  ),
}
DIGIT_THOUGHTS = ("I hear {}.", "The voice says {}.")
MEMORY_THOUGHTS = ("At the start I heard {}.", "The first clip said {}.")

ANSWERS = {
  "pitch": (
    "The voice is {}.",
    "I hear a {} voice.",
    "It sounds {} to me.",
    "The pitch is {}.",
  ),
  "rate": (
    "The speech is {}.",
    "The pace is {}.",
    "It sounds {} to me.",
    "The voice talks at a {} pace.",
  ),
  "speakers": ("I hear {} {noun}.", "There {verb} {} {noun} in the clip."),
  "emotion": ("You sound {}.", "I think you are {}.", "Your voice sounds {}."),
  "digits": ("The digits are {}.", "You said {}.", "I heard {}."),
  "memory": ("You said {}.", "It was {}.", "You told me {}."),
}
# What a kind listener adds, by the mood heard.
TONES = {
  "calm": ("That is nice to hear.", "I am glad you feel at ease."),
  "excited": ("That is wonderful!", "How great, I am happy for you!"),
  "sad": ("I am sorry, I am here for you.", "I am so sorry to hear that."),
  "angry": ("I understand, let us sort it out.", "I understand, take a breath."),
}
INVITATIONS = (
  "Shall we go on?",
  "What would you like next?",
  "Do you want to try more?",
)
# An instruction the human may add, and what then must hold of every later answer.
INSTRUCTIONS = {
  "brief": "Say only the answer.",
  "sure": "Begin with Sure.",
  "question": "End with a question.",
}
LASTING_INSTRUCTIONS = {
  "sure": "Always begin with Sure.",
  "question": "Always end with a question.",
}

RUBRICS = {
  "brief": "The reply is the answer and nothing else.",
  "sure": "The reply begins with Sure.",
  "question": "The reply ends with a question.",
  "tone": "The reply fits the mood of the speaker.",
}


def answer(template: str, task: str, label: str) -> str:
  """An answer template of `task` filled with its label."""
  if task != "speakers":
    return template.format(label)
  noun, verb = ("speaker", "is") if label == "one" else ("speakers", "are")
  return template.format(label, noun=noun, verb=verb)


def capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def corpus() -> list[str]:
  """Every sentence form, label words filled in; digits in every combination of two."""
  said = [
    carrier.format(value)
    for slot, values in words.FACTS.items()
    for value in values
    for carrier in words.CARRIERS[slot]
  ]
  digits = [f"{a} {b} {c}" for a, b, c in _digit_triples()]
  values = [value for facts in words.FACTS.values() for value in facts]
  lines = list(said)
  lines += [q for group in QUESTIONS.values() for q in group]
  lines += [q for group in FOLLOW_UPS.values() for q in group]
  lines += [q for group in MEMORY_QUESTIONS.values() for q in group]
  lines += [t for group in THOUGHTS.values() for t in group]
  lines += [t.format(text) for t in DIGIT_THOUGHTS for text in digits]
  lines += [t.format(text) for t in MEMORY_THOUGHTS for text in (*said, *digits[::10])]
  for task, labels in words.LABELS.items():
    lines += [answer(t, task, label) for t in ANSWERS[task] for label in labels]
    lines += [capital(label) + "." for label in labels]
  lines += [t.format(text) for t in ANSWERS["digits"] for text in digits]
  lines += [
    t.format(text) for t in ANSWERS["memory"] for text in (*values, *digits[::10])
  ]
  lines += [capital(text) + "." for text in (*values, *digits)]
  lines += [t for group in TONES.values() for t in group]
  lines += [*TELLINGS, *ACKNOWLEDGEMENTS, *INVITATIONS, *SYSTEM, "Sure."]
  lines += [*INSTRUCTIONS.values(), *LASTING_INSTRUCTIONS.values()]
  lines += [*RUBRICS.values()]
  lines += [line for opening in OPENINGS for line in opening]
  return lines


def _digit_triples():
  for a, first in enumerate(words.DIGITS):
    for b, second in enumerate(words.DIGITS):
      yield first, second, words.DIGITS[(3 * a + 7 * b) % 10]
