// Keeps the regions marked [data-live] as the server would draw them now. A server-sent event
// says that something changed; the page then fetches itself and swaps the regions that differ.
// When the events cannot be had, it looks every few seconds instead.

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
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
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

function swap(fresh) {
  const before = sayings(document);
  if (fresh.title) document.title = fresh.title;
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.isEqualNode(old) || busy(old)) continue;
    for (const details of now.querySelectorAll("details[data-key]")) {
      const twin = old.querySelector(`details[data-key="${CSS.escape(details.dataset.key)}"]`);
      if (twin) details.open = twin.open;
    }
    const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
    const node = document.adoptNode(now);
    old.replaceWith(node);
    if (focused) node.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  const said = [...sayings(document)].filter((text) => !before.has(text));
  if (said.length > 0) document.getElementById("announcer").textContent = said.slice(0, 3).join(". ");
}

// Somebody is filling in a form there: their text matters more than our news.
function busy(region) {
  return region.querySelector("details.act[open], input:checked[type=radio]") !== null
    || (region.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"));
}

function sayings(root) {
  return new Set([...root.querySelectorAll("[data-say]")].map((element) => element.dataset.say));
}
