"""Makes the tiny tokenizer: 1,024 tokens, byte-level BPE, the same bytes every time.

  python -m experiments.tiny_tokenizer [--out DIR] [--corpus FILE]…

A second's work on one core. The corpus is made here from templates about the quick
start's world (voices, digits, facts told earlier, thoughts about acoustic evidence);
each FILE adds its lines. The vocabulary is ordered as in Qwen2.5: pieces first, then
the special tokens, so every text can be written and no special one can be typed.
"""

import argparse
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Sequence

import tokenizers

from stepaudio_jax.data.world import captions, plan
from stepaudio_jax.text import tokenizer_files

VOCABULARY = 1024
WORLD_ROUNDS = 4  # how often the world's own sentences are read, beside the templates
OUT = pathlib.Path(tokenizer_files.__file__).parent / "tiny"

# (name, special): as in Qwen2.5, tool tags are part of a reply's text.
SPECIAL = (
  ("<|endoftext|>", True),
  ("<|im_start|>", True),
  ("<|im_end|>", True),
  ("<tool_call>", False),
  ("</tool_call>", False),
  ("<|EOT|>", True),
  ("<|BOT|>", True),
  ("<audio_start>", True),
  ("<audio_end>", True),
  ("<audio_patch>", True),
  ("<tts_start>", True),
  ("<tts_end>", True),
  ("<tts_pad>", True),
)

DIGITS = "zero one two three four five six seven eight nine"
PITCHES = "low middle high"
RATES = "slow normal fast"
EMOTIONS = "happy sad angry calm excited neutral"

# Each must be one token with its leading space; `write` raises where one is not.
ONE_TOKEN = tuple(f"{DIGITS} {PITCHES} {RATES} {EMOTIONS}".split())

SLOTS = {
  "digit": DIGITS,
  "pitch": PITCHES,
  "rate": RATES,
  "emotion": EMOTIONS,
  "level": "soft loud quiet clear deep bright flat warm",
  "count": "one two",
  "name": "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nora "
  "Oscar Paul Rosa Sam Tom Vera",
  "city": "Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Prague Tokyo "
  "Cairo Lima Boston",
  "colour": "red blue green yellow orange purple white black pink brown grey silver",
  "food": "bread rice soup apples cheese pasta salad honey coffee tea cake fish",
  "animal": "dog cat horse rabbit parrot turtle pony hamster",
  "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
  "time": "today tomorrow yesterday tonight soon later now",
  "thing": "guitar piano garden book train window letter bicycle camera boat table "
  "song",
  "room": "kitchen school office station market library park house",
  "kin": "sister brother mother father friend neighbour teacher daughter son",
  "deed": "reading running cooking singing painting swimming walking dancing",
}

TEMPLATES = (
  # Questions and requests.
  "Which digits did you hear?",
  "What digits were spoken in the recording?",
  "How fast is the person speaking?",
  "Is the speaking rate slow, normal or fast?",
  "Is the pitch of the voice low, middle or high?",
  "How high is the voice?",
  "How many speakers are there in this clip, one or two?",
  "Which emotion does the speaker show?",
  "How does the speaker sound: happy, sad, angry, calm, excited or neutral?",
  "What did I say two turns ago?",
  "Do you remember my name?",
  "What is my favourite colour?",
  "Where does my {kin} live?",
  "Can you tell me what I told you before?",
  "Listen to the audio and answer the question.",
  "Please answer in one short sentence.",
  "Please say that again, but a little shorter.",
  "Answer with a single word.",
  # What people say.
  "My name is {name} and I live in {city}.",
  "My favourite colour is {colour}.",
  "I like {food} and {food}, but I do not like {food}.",
  "I have a {animal} called {name}.",
  "My {kin} {name} lives in {city}.",
  "On {day} I am going to {city} with my {kin}.",
  "I left my {thing} in the {room}.",
  "My {colour} {thing} is in the {room}.",
  "We will meet at the {room} on {day}.",
  "I was {deed} in the {room} {time}.",
  "I lost my {thing} {time} and I feel {emotion}.",
  "My phone number ends with {digit} {digit} {digit}.",
  "The code is {digit} {digit} {digit} {digit}.",
  "{digit} {digit} {digit} {digit}",
  "I bought {digit} {colour} {thing}s for my {kin}.",
  "Did you know that {name} has {digit} {animal}s?",
  "I feel so {emotion} {time}!",
  "Oh no, I forgot to bring the {thing}.",
  "Guess what happened {time}?",
  "The train to {city} leaves at {digit} {time}.",
  # Thoughts about acoustic evidence.
  "The voice has a {pitch} pitch and it stays {level} through the clip.",
  "I listen to the pitch of the voice: it is {pitch}.",
  "The pitch is {pitch}, so the voice sounds {level}.",
  "The words come at a {rate} rate with {level} pauses between them.",
  "The speaking rate is {rate}: the syllables follow each other {rate}ly.",
  "The tempo is {rate} and the rhythm is even.",
  "I hear {count} voice and the timbre does not change.",
  "I hear two voices: the first is {pitch}, the second has another timbre.",
  "There are two speakers, because the timbre changes after the pause.",
  "The loudness is {level} and the intonation rises and falls, which fits {emotion}.",
  "The tone is {level} and the energy is {pitch}, so the speaker sounds {emotion}.",
  "The intonation is {level}; together with the {rate} tempo this suggests {emotion}.",
  "There is some noise in the background, but the words are clear.",
  "There is a short silence, then the speaker says {digit} {digit} {digit}.",
  "I hear the digits {digit}, {digit}, {digit} in this order.",
  "The speaker said earlier that the {thing} is in the {room}.",
  "Two turns ago the person said: my favourite colour is {colour}.",
  "The speaker told me the name {name} and the city {city}.",
  "The person sounds {emotion}, so I should answer in a {emotion} way.",
  # Replies.
  "The digits are {digit} {digit} {digit}.",
  "You said {digit} {digit} {digit}.",
  "The pitch is {pitch}.",
  "The voice is {pitch}.",
  "The speaking rate is {rate}.",
  "The speaker talks at a {rate} pace.",
  "There is {count} speaker in the clip.",
  "There are two speakers in the clip.",
  "The speaker sounds {emotion}.",
  "It sounds {emotion} to me.",
  "Your name is {name}, and you live in {city}.",
  "You told me that your favourite colour is {colour}.",
  "You said that your {thing} is in the {room}.",
  "Your {kin} lives in {city}, as you said earlier.",
  "That is lovely to hear, {name}! What are you going to do next?",
  "I am sorry to hear that. Would you like to tell me more about it?",
  "Of course! How was your day in {city}?",
  "You sound {emotion}. Is everything all right?",
  "I understand why you feel {emotion}. I am here with you.",
  "Thank you for telling me about your {animal}.",
  "Great question! I think the answer is {digit}.",
  "I could not hear that well, could you say it again?",
  "No, there are {digit} of them. Yes, that is right.",
  "Let's talk about {food} or {deed}, whichever you like.",
  "It's a good day for {deed}, isn't it? I'd love to know.",
  # Judgements.
  "The first answer is better because it is correct and sounds natural.",
  "The second reply is longer, but it does not fit the emotion of the speaker.",
  "Reply A names the evidence that can be heard; reply B only guesses.",
  "Both are equal: each keeps the facts that were told before.",
  "Level {digit}: the reply follows the instruction and keeps the conversation going.",
)

# The seams of the turn format, so that they cost few tokens.
TURNS = (
  "system\nYou are a helpful voice assistant. You listen and answer in a friendly way.",
  "human\nWhat did you hear in this recording?",
  "assistant\n<think>\nI listen to the voice.\n</think>\nThe pitch is low.",
  "assistant\n<think>\n\n</think>\nThe speaker sounds calm.",
  "tool_json_schemas\n[]",
  "input\nhello",
)

FREQUENT = (
  "the of and to a in is you that it he was for on are as with his they I at be this "
  "have from or one had by word but not what all were we when your can said there use "
  "an each which she do how their if will up other about out many then them these so "
  "some her would make like him into time has look two more write go see number no "
  "way could people my than first water been call who its now find long down day did "
  "get come made may part over new sound take only little work know place year live "
  "me back give most very after thing our just name good sentence man think say great "
  "where help through much before line right too mean old any same tell boy follow "
  "came want show also around form three small set put end does another well large "
  "must big even such because turn here why ask went men read need land different "
  "home us move try kind hand picture again change off play spell air away animal "
  "house point page letter mother answer found study still learn should world high "
  "every near add food between own below country last school father keep tree never "
  "start city earth eye light thought head under story saw left few while along might "
  "close something seem next hard open begin life always both paper together got "
  "group often run"
)


def corpus(rounds: int = 12) -> list[str]:
  """Each template filled in `rounds` times; a hash of the place picks the word."""
  filled = [
    _filled(template, seed=f"{k}/{i}")
    for k in range(rounds)
    for i, template in enumerate(TEMPLATES)
  ]
  pairs = [f"{a} {b}" for a, b in zip(filled[::2], filled[1::2], strict=False)]
  lists = [" " + words for words in SLOTS.values()] * rounds
  return [*pairs, *lists, *TURNS * (3 * rounds), *[FREQUENT] * (rounds // 3)]


def document(lines: Sequence[str]) -> dict:
  """tokenizer.json trained on `lines`; ONE_TOKEN is a fixed share of what it sees."""
  pieces = VOCABULARY - len(SPECIAL)
  engine = _engine({}, [])
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=pieces,
    initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  engine.train_from_iterator(_weighted(lines), trainer)
  model = json.loads(engine.to_str())["model"]
  special = [
    tokenizer_files.added_token(pieces + i, name, flag)
    for i, (name, flag) in enumerate(SPECIAL)
  ]
  vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
  if len(vocabulary) != pieces:
    raise ValueError(f"the corpus gives {len(vocabulary)} pieces, {pieces} are wanted")
  return tokenizer_files.byte_level_document(vocabulary, model["merges"], special, None)


def write(out: pathlib.Path, lines: Sequence[str]) -> None:
  """Trains on `lines` and writes the two files of a tokenizer directory."""
  made = document(lines)
  model = made["model"]
  engine = _engine(model["vocab"], model["merges"])
  split = [word for word in ONE_TOKEN if len(engine.encode(" " + word).ids) != 1]
  if split:
    raise ValueError(f"with this corpus these are not single tokens: {split}")
  out.mkdir(parents=True, exist_ok=True)
  for name, content in {
    "tokenizer.json": made,
    "tokenizer_config.json": tokenizer_files.CONFIG,
  }.items():
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (out / name).write_text(text + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.tiny_tokenizer",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--out", type=pathlib.Path, default=OUT, help="directory")
  parser.add_argument(
    "--corpus", type=pathlib.Path, action="append", default=[], help="more text"
  )
  arguments = parser.parse_args(argv)
  lines = [*corpus(), *plan.corpus() * WORLD_ROUNDS, captions.QUESTION]
  for file in arguments.corpus:
    lines += file.read_text(encoding="utf-8").splitlines()
  write(arguments.out, lines)
  print(f"{arguments.out}: {VOCABULARY} tokens from {len(lines)} lines")


def _filled(template: str, seed: str) -> str:
  def word(slot: re.Match) -> str:
    key = f"{seed}/{slot.start()}".encode()
    draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    words = SLOTS[slot[1]].split()
    return words[draw % len(words)]

  return re.sub(r"{(\w+)}", word, template)


def _engine(vocabulary: dict[str, int], merges: list) -> tokenizers.Tokenizer:
  made = tokenizer_files.byte_level_document(vocabulary, merges, [], None)
  return tokenizers.Tokenizer.from_str(json.dumps(made))


def _weighted(lines: Sequence[str]) -> Iterator[str]:
  """`lines`, then ONE_TOKEN so often that any extra corpus keeps the words whole."""
  yield from lines
  words = sum(line.count(" ") + 1 for line in lines)
  for _ in range(words // 100):
    yield " " + " ".join(ONE_TOKEN)


if __name__ == "__main__":
  main()
