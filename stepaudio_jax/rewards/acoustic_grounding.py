"""1 where the thought names something that can only be heard, else 0.

Step-Audio-R1 (§4.2) keeps a chain of thought if it argues from the sound itself, such
as pitch, timbre or rhythm, and not from the words that were said, as a model does that
reads a transcript in its head. So a sentence that speaks of a transcript, of lyrics or
of a text counts for nothing, nor does a quotation, nor one that denies hearing. Where
we differ: terms are listed here, English and Chinese, where R1 had replies filtered;
whether the feature is the right one this rule cannot know.
"""

import re
from collections.abc import Mapping
from typing import Any

from stepaudio_jax.core import replies
from stepaudio_jax.rewards.parts import answers

EXAMPLES = [
  ({"id": "x"}, "The pitch drops at the end.\n</think>\nSad.", 1.0),
  ({"id": "x"}, "A slow tempo, soft piano and a breathy voice.\n</think>\nCalm.", 1.0),
  ({"id": "x"}, "语速很快，音量也大。\n</think>\n生气。", 1.0),
  ({"id": "x"}, "The words come quickly.\n</think>\nFast.", 1.0),
  ({"id": "x"}, "The same voice in both parts.\n</think>\nOne.", 1.0),
  ({"id": "x"}, "The speaker says that he lost his keys.\n</think>\nSad.", 0.0),
  ({"id": "x"}, "The lyrics speak of a low pitch.\n</think>\nLow.", 0.0),
  ({"id": "x"}, "The lyrics are sad but the tempo is fast.\n</think>\nHappy.", 1.0),
  ({"id": "x"}, 'She says "what a loud drum".\n</think>\nA drum.', 0.0),
  ({"id": "x"}, "I cannot hear the tone of the voice.\n</think>\nSad.", 0.0),
  ({"id": "x"}, "I could not make out the tone.\n</think>\nSad.", 0.0),
  ({"id": "x"}, "Without hearing the pitch I guess.\n</think>\nSad.", 0.0),
  ({"id": "x"}, "She said 'mind the drum' twice.\n</think>\nA drum.", 0.0),
  ({"id": "x"}, "The speaker's pitch drops, that's 'sad'.\n</think>\nSad.", 1.0),
  ({"id": "x"}, "文本说他的声音低沉。\n</think>\n低。", 0.0),
  ({"id": "x"}, "I wish him a platone.\n</think>\nLow.", 0.0),
  ({"id": "x"}, "\n</think>\nThe pitch is low.", 0.0),
  ({"id": "x"}, "The pitch is low.", 0.0),
]

# A voice is none of these by itself: everything that is said is said by a voice.
_ADJECTIVES = (
  "deep|dark|heavy|bright|thin|light|gentle|relaxed|lively|flat|weak|sharp|hard|soft|"
  "warm|trembling|shaky|strained|young|old|female|male|high|low|raised"
)
_TERMS = {
  "pitch": (
    r"pitch(?:es|ed)?|tones?|intonation|inflections?|melod(?:y|ies|ic)|octaves?|"
    r"harmon(?:y|ies|ic|ics)|chords?|frequenc(?:y|ies)|vibrato|falsetto|"
    r"(?:major|minor) key",
    "音高|音调|语调|声调|高音|低音|旋律|和声|和弦|频率|颤音",
  ),
  "loudness": (
    r"loud(?:ly|er|ness)?|quiet(?:ly|er)?|volume|whisper(?:s|ed|ing)?|"
    r"shout(?:s|ed|ing)?|softly|decibels?|crescendo",
    "音量|响度|大声|小声|轻声|低语|耳语|喊",
  ),
  "pace": (
    r"pace|tempo|rhythms?|rhythmic|beats?|cadence|speech rate|speaking rate|rapidly|"
    r"quickly|slowly|rush(?:ed)?|stretched|drawn|drags|pauses?|hesitat(?:es|ion|ing)",
    "语速|节奏|节拍|停顿|拖长|急促|语气缓慢",
  ),
  "timbre": (
    r"timbres?|raspy|breathy|nasal|husky|hoarse|resonan(?:t|ce)|creaky|muffled|"
    rf"metallic|shrill|mellow|(?:{_ADJECTIVES}),? (?:\w+,? )?voices?|"
    rf"voices? (?:is|was|are|sits|sounds) (?:\w+ )?(?:{_ADJECTIVES})",
    "音色|嗓音|沙哑|鼻音|气声|共鸣|清脆|浑厚|低沉",
  ),
  "speakers": (
    r"(?:same|two|different|second|other|overlapping) voices?|"
    r"voices? (?:stays?|changes?|overlaps?|alternates?)",
    "男声|女声|童声|两个声音|同一个声音",
  ),
  "expression": (
    r"laugh(?:s|ed|ing|ter)?|sigh(?:s|ed|ing)?|sob(?:s|bing)?|giggl(?:es|ing)|"
    r"trembl(?:es|ing)|(?:voice|it) cracks",
    "笑声|叹气|叹息|哭声|哽咽|颤抖",
  ),
  "articulation": (
    r"accent(?:s|ed)?|pronunciation|pronounc(?:es|ed)|articulat(?:es|ed|ion)|"
    r"slurr(?:s|ed|ing)|mumbl(?:es|ed|ing)|vowels?|consonants?|syllables?",
    "口音|发音|重音|咬字|吐字|元音|辅音",
  ),
  "sound": (
    r"noises?|noisy|reverb(?:eration)?|echo(?:es)?|hum(?:ming)?|buzz(?:ing)?|clang|thud|"
    r"footsteps|bark(?:s|ing)|sirens?|crackl(?:e|es|ing)|chirp(?:s|ing)|rustl(?:e|ing)|"
    r"drums?|percussion|guitars?|pianos?|violins?|bass|strings|synthesi[sz]ers?",
    "噪声|噪音|混响|回声|嗡嗡|脚步声|鸟鸣|鼓|吉他|钢琴|小提琴|贝斯|打击乐",
  ),
}
_KINDS = {
  kind: re.compile(rf"\b(?:{english})\b|{chinese}", re.I)
  for kind, (english, chinese) in _TERMS.items()
}
_READ = re.compile(
  r"\b(?:transcripts?|transcriptions?|transcribed|lyrics?|texts?|captions?|subtitles?|"
  r"wording|written)\b|文字|文本|歌词|字幕|转写|转录",
  re.I,
)
_DEAF = re.compile(
  r"\b(?:cannot|can't|can not|could not|couldn't|unable to|not able to|do not|don't) "
  r"(?:\w+ )?(?:hear|listen|perceive|access|process|make out|discern|detect)|"
  r"\bwithout (?:\w+ )?hearing\b|\bno way to\b|\bno (?:audio|sound|recording)\b|"
  r"听不|无法听|不能听|没有听|没有音频|没有声音",
  re.I,
)
_QUOTED = re.compile(
  r"\"[^\"]*\"|“[^”]*”|(?<!\w)['‘][^']*'(?!\w)|「[^」]*」|『[^』]*』|《[^》]*》"
)
_PARTS = re.compile(
  r"[.!?;。！？；\n]+|\b(?:but|however|yet|whereas|while)\b|但|不过|然而", re.I
)


def score(example: Mapping[str, Any], text: str) -> float:
  """Reads the thought alone; one that never closes has no grounds."""
  del example
  thought, answer = replies.split_reply(text)
  return float(answer is not None and bool(features(thought)))


def features(thought: str) -> dict[str, list[str]]:
  """What a thought names that can be heard: {kind: terms as written, in order}."""
  text = _QUOTED.sub(" ", answers.normal(thought))
  heard = [
    one for one in _PARTS.split(text) if not (_READ.search(one) or _DEAF.search(one))
  ]
  found = {
    kind: [term[0] for one in heard for term in pattern.finditer(one)]
    for kind, pattern in _KINDS.items()
  }
  return {kind: terms for kind, terms in found.items() if terms}
