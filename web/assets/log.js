// Appends the lines of a running step as they come. The server has escaped them. Whether the
// view follows is read from the scroll position: at the end it follows, scrolled up it stays.

const BLOCK = 500; // lines in one block, as the server makes them
const KEEP = 40; // blocks kept; the raw log has everything
const GATHER_MS = 40; // lines within this time are drawn at once: each drawing costs a layout
const NEAR = 40; // pixels from the end that still count as the end

export function followLog() {
  const log = document.querySelector(".log[data-log-events]");
  if (!log || log.dataset.following) return;
  log.dataset.following = "yes";
  if (!location.hash) log.scrollTop = log.scrollHeight;
  let gathered = [];
  const draw = () => {
    append(log, gathered.join(""));
    gathered = [];
  };
  const source = new EventSource(log.dataset.logEvents);
  source.addEventListener("lines", (event) => {
    if (!log.isConnected) return source.close(); // the page shows another step now
    if (gathered.push(event.data) === 1) setTimeout(draw, GATHER_MS);
  });
  source.addEventListener("end", () => {
    source.close();
    const foot = log.parentElement.querySelector(".log-foot");
    if (foot) foot.textContent = "End of the log.";
  });
}

export function isAtEnd(log) {
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
}

function append(log, html) {
  const follow = isAtEnd(log);
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const lines = [...fresh.content.children];
  let block = log.querySelector(".block:last-of-type");
  while (lines.length > 0) {
    if (!block || block.childElementCount >= BLOCK) {
      block = document.createElement("div");
      block.className = "block";
      log.append(block);
    }
    block.append(...lines.splice(0, BLOCK - block.childElementCount));
  }
  if (!follow) return;
  const blocks = log.querySelectorAll(".block");
  for (let spare = 0; spare < blocks.length - KEEP; spare += 1) blocks[spare].remove();
  log.scrollTop = log.scrollHeight;
}
