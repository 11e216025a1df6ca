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

// The published rule was asked about first samples only.
const differs = (row) =>
  row.verdict !== "failed" && row.sample === 0 && (row.official === null
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
