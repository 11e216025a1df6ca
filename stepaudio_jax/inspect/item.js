// ---- One item

function open(k) {
  state.at = k;
  detail.replaceChildren(...parts(rows[k]));
  detail.scrollTop = 0;
  document.body.classList.add("open");
  mark();
}

function parts(row) {
  return [bar(row), chips(row), scores(row), prompt(row), reply(row), extras(row)]
    .filter(Boolean);
}

function bar(row) {
  const tag = { right: "right", wrong: "wrong" }[row.verdict] ?? "note";
  const out = put(make("div", "bar"), button("back", "☰ List", back),
    make("h2", "", row.id),
    make("span", `tag ${tag}`, `${MARKS[row.verdict]} ${NAMES[row.verdict]}`),
    button("", "←", () => step(-1), "Previous item"),
    button("", "→", () => step(1), "Next item"));
  return out;
}

function button(kind, text, action, label) {
  const out = make("button", kind, text);
  out.type = "button";
  if (label) out.setAttribute("aria-label", label);
  out.addEventListener("click", action);
  return out;
}

function chips(row) {
  const out = make("div", "chips");
  const own = changes(row).concat(row.truncated ? ["cut at the token limit"] : []);
  for (const text of own) out.append(make("span", "tag note", text));
  for (const [kind, name] of Object.entries(row.groups)) {
    out.append(make("span", "tag", `${kind}: ${name}`));
  }
  for (const other of rows) {
    if (other.id !== row.id || other === row) continue;
    const how = changes(other).join(", ") || "audio";
    const link = make("a", "tag", `${MARKS[other.verdict]} ${how}`);
    link.href = `#${encodeURIComponent(other.key)}`;
    out.append(link);
  }
  return out;
}

const shownScore = (score) => score === null ? "–" : String(+score.toFixed(4));

function scores(row) {
  const out = make("dl", "scores small");
  const facts = [["our score", shownScore(row.score)],
    hasOfficial && ["official rule", shownScore(row.official)],
    ["extracted", row.extracted ?? "–"],
    row.gold !== null && ["right answer", row.gold],
    row.think_tokens !== null && ["thought, tokens", row.think_tokens]];
  for (const [name, value] of facts.filter(Boolean)) {
    put(out, put(make("div"), make("dt", "", name), make("dd", "", value)));
  }
  return out;
}

function card(title, ...children) {
  return put(make("section", "card"), make("h3", "", title), ...children);
}

function prompt(row) {
  const out = card(row.replaced
    ? `Asked, with ${row.condition} in the place of what is played here` : "Asked");
  for (const turn of row.turns) {
    const node = put(make("div", "turn"), make("p", "who", turn.role));
    if (turn.think) node.append(make("p", "said thought", turn.think));
    for (const block of turn.blocks) {
      node.append("clip" in block ? player(block.clip) : make("p", "said", block.text));
    }
    out.append(node);
  }
  if (row.choices.length) {
    const choices = make("ol", "choices");
    choices.type = "A";
    for (const choice of row.choices) {
      choices.append(make("li", choice === row.gold ? "gold" : "", choice));
    }
    out.append(put(make("div", "turn"), make("p", "who", "choices"), choices));
  }
  return out;
}

function player(k) {
  const clip = clips[k];
  const out = make("div", "clip");
  if (clip.absent) {
    return put(out, make("p", "small failure", `No sound: ${clip.absent}`),
      make("code", "muted", clip.source));
  }
  const audio = make("audio");
  audio.controls = true;
  audio.preload = "metadata";
  audio.src = `data:${clip.mime};base64,` +
    document.getElementById(`clip-${k}`).textContent;
  audio.setAttribute("aria-label", `Clip of ${clip.seconds.toFixed(1)} seconds`);
  const name = clip.source.split("/").slice(-2).join("/");
  return put(out, audio,
    make("p", "tiny muted", `${clip.seconds.toFixed(1)} s, ${name}`));
}

function reply(row) {
  if (row.failed !== null) {
    return card("Failed", make("p", "said failure", row.failed));
  }
  const out = card("Replied");
  if (row.think) out.append(make("p", "said thought", row.think));
  out.append(row.reply === null
    ? make("p", "said failure", "No answer: the thought never closed.")
    : make("p", "said answer", row.reply));
  if (row.raw !== null) out.append(folded("Raw reply", make("pre", "", row.raw)));
  return out;
}

function folded(title, node) {
  return put(make("details"), make("summary", "", title), node);
}

function extras(row) {
  return Object.keys(row.detail).length
    ? card("How it was scored", tree(row.detail)) : null;
}

function tree(value) {
  if (value === null || typeof value !== "object") return document.createTextNode(
    value === null ? "–" : String(value));
  const out = make("dl", "tree");
  for (const [name, inner] of Object.entries(value)) {
    const label = Array.isArray(value) ? String(+name + 1) : name;
    put(out, make("dt", "", label), put(make("dd"), tree(inner)));
  }
  return out;
}

// ---- Ways around

function step(by) {
  const place = state.shown.indexOf(state.at);
  const next = place < 0 ? (by > 0 ? 0 : -1) : place + by;
  if (next >= 0 && next < state.shown.length) go(state.shown[next]);
}

function go(k) {
  history.replaceState(null, "", `#${encodeURIComponent(rows[k].key)}`);
  open(k);
}

function back() {
  document.body.classList.remove("open");
  mark();
}

function follow() {
  let key;
  try {
    key = decodeURIComponent(location.hash.slice(1));
  } catch {
    key = location.hash.slice(1);
  }
  const k = places.get(key);
  if (k !== undefined) {
    if (!state.shown.includes(k)) clear();
    open(k);
  } else if (!key) {
    back();
  } else {
    state.at = -1;
    detail.replaceChildren(button("back", "☰ List", back),
      make("p", "failure", `There is no item ${JSON.stringify(key)} on this page.`));
    document.body.classList.add("open");
  }
}

const KEYS = {
  ArrowRight: () => step(1), j: () => step(1),
  ArrowLeft: () => step(-1), k: () => step(-1),
  "/": () => { back(); search.focus(); },
  a: () => detail.querySelector("audio")?.play(),
  Escape: back,
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, audio");
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  if (typing && event.key !== "Escape") return;
  event.preventDefault();
  if (typing) typing.blur();
  KEYS[event.key]();
});

let waiting = 0;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(filter, 120);
});
document.getElementById("filters").addEventListener("submit", (e) => e.preventDefault());
more.addEventListener("click", extend);
window.addEventListener("hashchange", follow);

makeFilters();
filter();
detail.replaceChildren(make("p", "muted", rows.length
  ? "Choose an item. → or j next, ← or k previous, / search, a play."
  : "There are no items."));
if (location.hash) follow();
else if (rows.length && matchMedia("(min-width: 761px)").matches) go(state.shown[0]);
