"""A page read back with an HTML parser."""

import html.parser

VOID = {"meta", "link", "input"}
BLOCKS = {"td", "th", "p", "div", "li", "dd", "dt"}  # on a line or in a cell of its own


class Page(html.parser.HTMLParser):
  """Every start tag with its attributes, and the text, whole and by article."""

  def __init__(self, text):
    super().__init__()
    self.source, self.tags, self.open = text, [], []
    self.words, self.articles, self.sounds = [], [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)
    if tag == "article":
      self.articles.append([])
      self.sounds.append([])
    if tag == "audio":
      self.sounds[-1].append(dict(attrs))
    if tag in BLOCKS:
      self.handle_data(" ")

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "style" not in self.open:
      self.words.append(data)
      if "article" in self.open:
        self.articles[-1].append(data)

  @property
  def text(self):
    return plain(self.words)

  def article(self, index):
    return plain(self.articles[index])

  def of(self, tag, **attributes):
    keys = attributes.items()
    return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in keys)]


def plain(words):
  return " ".join("".join(words).split())  # no-break spaces become spaces


def read(path):
  return Page(path.read_text(encoding="utf-8"))
