// Keeps the regions marked [data-live] as the server would draw them now. A server-sent event
// says that something changed; the page then fetches itself and swaps the regions that differ.
// When the events cannot be had, it looks every few seconds instead.

import { isAtEnd } from "./log.js";

const QUIET_MS = 250; // gathers a burst of events into one fetch
const POLL_MS = 5000; // while there are no events
const AGE_MS = 30000; // so that "3 m ago" does not grow stale

let timer = 0;
let fetching = false;
let again = false;

export function watchPage(afterSwap) {
  const address = document.body.dataset.events;
  if (!address) return;
  const refresh = () => load(afterSwap);
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, QUIET_MS);
  };
  let open = false;
  const source = new EventSource(address);
  source.addEventListener("change", soon);
  // After a gap something may have changed unseen, so every (re)connection looks once.
  source.addEventListener("open", () => { open = true; soon(); });
  source.addEventListener("error", () => { open = false; });
  setInterval(() => { if (!open && !document.hidden) refresh(); }, POLL_MS);
  setInterval(() => { if (!document.hidden) refresh(); }, AGE_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
}

async function load(afterSwap) {
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    const reply = await fetch(address(), { headers: { Accept: "text/html" } });
    if (reply.redirected) { location.assign(reply.url); return; } // the session ended
    if (reply.ok) {
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      swap(fresh);
      afterSwap();
    }
  } catch {
    // The server is away; the next poll or event tries again.
  } finally {
    fetching = false;
    if (again) { again = false; load(afterSwap); }
  }
}

// Without a step in its address a run's page shows the one that runs, so the log goes on to the next
// step. Whoever scrolled up or points at a line reads this one: for them it stays chosen.
function address() {
  const card = document.querySelector("#log[data-step]");
  const log = card?.querySelector(".log");
  if (!log || (isAtEnd(log) && !location.hash)) return location.href;
  const url = new URL(location.href);
  url.searchParams.set("step", card.dataset.step);
  url.searchParams.set("attempt", card.dataset.attempt);
  return url;
}

function swap(fresh) {
  const before = sayings(document);
  if (fresh.title) document.title = fresh.title;
  showOtherLog(fresh);
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.isEqualNode(old) || busy(old)) continue;
    for (const details of now.querySelectorAll("details[data-key]")) {
      const twin = old.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
      if (twin) details.open = twin.open;
    }
    replace(old, now);
  }
  const said = [...sayings(document)].filter((text) => !before.has(text));
  if (said.length > 0) document.getElementById("announcer").textContent = said.slice(0, 3).join(". ");
}

// The log of a step is appended to, never swapped, unless it is another step's.
function showOtherLog(fresh) {
  const old = document.querySelector("#log[data-step]");
  const now = fresh.querySelector("#log[data-step]");
  const shown = (card) => `${card.dataset.step} ${card.dataset.attempt}`;
  if (!old || !now || shown(old) === shown(now)) return;
  for (const box of old.querySelectorAll("input[type=checkbox]")) {
    now.querySelector(`#${box.id}`).checked = box.checked;
  }
  replace(old, now);
  const log = now.querySelector(".log");
  log.scrollTop = log.scrollHeight;
}

// Keeps the keyboard's place, and how far a part was scrolled.
function replace(old, now) {
  const focused = old.contains(document.activeElement) ? signature(document.activeElement) : null;
  const scrolled = [...old.querySelectorAll(".scroll, .log.short")].map((part) => [part.scrollLeft, part.scrollTop]);
  old.replaceWith(document.adoptNode(now));
  if (focused) {
    const all = [...now.querySelectorAll("a, button, summary, input, [tabindex]")];
    all.find((element) => signature(element) === focused)?.focus({ preventScroll: true });
  }
  now.querySelectorAll(".scroll, .log.short").forEach((part, index) => {
    [part.scrollLeft, part.scrollTop] = scrolled[index] ?? [0, 0];
  });
}

// What makes an element the same one after a swap.
function signature(element) {
  return [
    element.localName,
    element.id,
    element.getAttribute("href"),
    element.closest("form")?.getAttribute("action"),
    element.closest("details[data-key]")?.dataset.key,
  ].join(" ");
}

// Somebody is filling in a form there: their text matters more than our news.
function busy(region) {
  return region.querySelector("details.act[open], input:checked[type=radio]") !== null
    || (region.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), select, textarea"));
}

function sayings(root) {
  return new Set([...root.querySelectorAll("[data-say]")].map((element) => element.dataset.say));
}
