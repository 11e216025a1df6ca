"use strict";
// Everything shown comes from models and files: it enters the page as text only.

const rows = JSON.parse(document.getElementById("rows").textContent);
const clips = JSON.parse(document.getElementById("clips").textContent);
const places = new Map(rows.map((row, k) => [row.key, k]));
const MARKS = { right: "✓", part: "◐", wrong: "✗", unparsed: "?", failed: "!" };
const NAMES = {
  right: "right", part: "partly right", wrong: "wrong",
  unparsed: "no readable answer", failed: "failed",
};
const STEP = 300; // list entries made at a time
const state = { shown: [], made: 0, at: -1 };
const list = document.getElementById("list");
const detail = document.getElementById("detail");
const search = document.getElementById("search");
const more = document.getElementById("more");

function make(tag, kind, text) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  if (text !== undefined && text !== null) node.textContent = text;
  return node;
}

function put(parent, ...children) {
  for (const child of children) if (child) parent.append(child);
  return parent;
}

// ---- Filters

const differs = (row) =>
  row.verdict !== "failed" && (row.official === null
    ? row.score !== null : Math.abs(row.official - (row.score ?? 0)) > 1e-9);
const hasOfficial = rows.some((row) => row.official !== null);

// Each filter: a name, and of a row the values it can be chosen by.
function filterRows() {
  const out = [["verdict", (row) => [NAMES[row.verdict]].concat(
    hasOfficial && differs(row) ? ["ours ≠ official"] : [])]];
  out.push(["audio", (row) => [row.condition]]);
  const kinds = new Set(rows.flatMap((row) => Object.keys(row.groups)));
  for (const kind of kinds) {
    out.push([kind, (row) => kind in row.groups ? [String(row.groups[kind])] : []]);
  }
  out.push(["sample", (row) => [String(row.sample)]]);
  out.push(["budget", (row) => [row.budget === null ? "free" : String(row.budget)]]);
  return out;
}

const filters = filterRows().map(([name, values]) => ({ name, values, select: null }))
  .filter((one) => one.name === "verdict" ||
    new Set(rows.flatMap(one.values)).size > 1);

function makeFilters() {
  for (const one of filters) {
    const counts = new Map();
    for (const row of rows) {
      for (const value of one.values(row)) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    one.select = make("select");
    one.select.setAttribute("aria-label", one.name);
    one.select.append(new Option(`${one.name}: all`, ""));
    for (const [value, count] of counts) {
      one.select.append(new Option(`${value} (${count})`, `=${value}`));
    }
    const plain = { audio: "audio", budget: "free" }[one.name];
    if (counts.has(plain)) one.select.value = `=${plain}`;
    one.select.addEventListener("change", filter);
    document.getElementById("selects").append(one.select);
  }
}

function words(row) {
  const said = row.turns.flatMap((turn) => turn.blocks.map((block) => block.text));
  const parts = [row.id, row.gold, row.extracted, row.think, row.reply, row.raw];
  return parts.concat(row.choices, said, row.failed).filter(Boolean)
    .join("\n").toLowerCase();
}

function clear() {
  search.value = "";
  for (const one of filters) one.select.value = "";
  filter();
}

const found = []; // words of rows, made when first searched
function holds(k, wanted) {
  found[k] ??= words(rows[k]);
  return found[k].includes(wanted);
}

function filter() {
  const wanted = search.value.trim().toLowerCase();
  const chosen = filters.filter((one) => one.select.value);
  state.shown = [];
  rows.forEach((row, k) => {
    const fits = chosen.every(
      (one) => one.values(row).includes(one.select.value.slice(1)));
    if (fits && (!wanted || holds(k, wanted))) state.shown.push(k);
  });
  document.getElementById("count").textContent =
    `${state.shown.length} of ${rows.length}`;
  list.replaceChildren();
  state.made = 0;
  extend();
  mark();
}

// What was changed: nothing where the benchmark is asked as it is.
function changes(row) {
  return [row.condition !== "audio" && row.condition,
    row.sample > 0 && `sample ${row.sample}`,
    row.budget !== null && `budget ${row.budget}`].filter(Boolean);
}

// ---- List

function extend() {
  const next = state.shown.slice(state.made, state.made + STEP);
  list.append(...next.map(entry));
  state.made += next.length;
  more.hidden = state.made >= state.shown.length;
}

function entry(k) {
  const row = rows[k];
  const link = make("a");
  link.href = `#${encodeURIComponent(row.key)}`;
  const sign = make("span", `mark ${row.verdict}`, MARKS[row.verdict]);
  sign.title = NAMES[row.verdict];
  sign.setAttribute("role", "img");
  sign.setAttribute("aria-label", NAMES[row.verdict]);
  const says = row.failed ?? row.reply ?? "(no answer)";
  const name = make("div", "strong", `${row.id} `);
  for (const how of changes(row)) name.append(make("span", "tag note", how), " ");
  const text = put(make("div", "text"), name, make("div", "says", says.slice(0, 120)));
  const item = put(make("li"), put(link, sign, text));
  link.addEventListener("click", () => { // the same item again changes no address
    if (link.hash === location.hash) open(k);
  });
  return item;
}

function mark() {
  list.querySelector("[aria-current]")?.removeAttribute("aria-current");
  const place = state.shown.indexOf(state.at);
  while (place >= state.made) extend();
  const item = list.children[place];
  if (!item) return;
  item.firstChild.setAttribute("aria-current", "true");
  item.scrollIntoView({ block: "nearest" });
}

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
  const out = card(row.condition === "audio" ? "Asked"
    : `Asked, audio ${row.condition} (played here: the clip that the row names)`);
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
