/* Keeps the rows of the market as they are in the network. Nothing moves: numbers change in place, rows that
   ended stay and say so, and what is new waits behind a link. Without this the page is as of its loading. */
const table = document.querySelector("table[data-events]");
const dot = document.querySelector(".dot");
const fresh = document.querySelector(".fresh");
const language = document.documentElement.lang;
const write = (number) => new Intl.NumberFormat(language).format(number);
const others = new Set();
const AGAIN_MS = 15_000;
let stream = null;
let last = "";

function show(cell, text) {
  if (!cell || cell.textContent === text) return;
  cell.textContent = text;
  const row = cell.closest("td");
  delete row.dataset.flash;
  void row.offsetWidth; // so that the animation begins again
  row.dataset.flash = "";
}

function rowOf(peer) {
  return table.querySelector(`tr[data-peer="${CSS.escape(peer)}"]`);
}

function tag(row, text, kind) {
  const place = row.querySelector('[data-cell="state"]');
  const made = document.createElement("span");
  made.className = `tag ${kind}`;
  made.textContent = text;
  place.replaceChildren(...(text ? [made] : []));
}

function waits(peer) {
  others.add(peer);
  fresh.hidden = false;
  fresh.textContent = others.size === 1 ? fresh.dataset.one : fresh.dataset.many.replace("{n}", write(others.size));
}

function changed(offer) {
  const row = rowOf(offer.peer_id);
  if (!row) return waits(offer.peer_id);
  if ("gone" in row.dataset) tag(row, "", "");
  delete row.dataset.gone;
  show(row.querySelector('[data-cell="price"]'), write(offer.price_qu_per_hour));
  show(row.querySelector('[data-cell="gpus"]'), `${write(offer.gpus)}×`);
}

function gone({ peer_id, live }) {
  const row = rowOf(peer_id);
  others.delete(peer_id);
  if (!row) return;
  row.dataset.gone = "";
  tag(row, live ? table.dataset.left : table.dataset.ended, "ended");
}

function listen() {
  const from = new URL(table.dataset.events, location.href);
  if (last) from.searchParams.set("since", last);
  stream = new EventSource(from);
  const on = (name, act) => stream.addEventListener(name, (event) => {
    last = event.lastEventId || last;
    act(JSON.parse(event.data || "{}"));
  });
  on("ready", () => light("on"));
  on("offer", changed);
  on("gone", gone);
  on("reset", () => waits(""));
  stream.onerror = () => {
    light("again");
    if (stream?.readyState !== EventSource.CLOSED) return; // it comes back by itself
    stream = null;
    setTimeout(follow, AGAIN_MS);
  };
}

function light(state) {
  dot.dataset.state = state;
  dot.textContent = dot.dataset[state];
}

function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    light("off");
  } else if (!stream) listen();
}

if (table) {
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => stream?.close());
  follow();
}
