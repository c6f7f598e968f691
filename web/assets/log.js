// Appends the lines of a running step as they come. The server has escaped them. Whether the
// view follows is read from the scroll position: at the end it follows, scrolled up it stays.

const BLOCK = 500; // lines in one block, as the server makes them
const KEEP = 40; // blocks kept; the raw log has everything
const NEAR = 40; // pixels from the end that still count as the end

export function followLog() {
  const log = document.querySelector(".log[data-log-events]");
  if (!log || log.dataset.following) return;
  log.dataset.following = "yes";
  if (!location.hash) log.scrollTop = log.scrollHeight;
  const source = new EventSource(log.dataset.logEvents);
  source.addEventListener("lines", (event) => append(log, event.data));
  source.addEventListener("end", () => {
    source.close();
    const foot = log.parentElement.querySelector(".log-foot");
    if (foot) foot.textContent = "End of the log.";
  });
}

function append(log, html) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  let block = log.querySelector(".block:last-of-type");
  if (!block || block.childElementCount >= BLOCK) {
    block = document.createElement("div");
    block.className = "block";
    log.append(block);
  }
  block.insertAdjacentHTML("beforeend", html);
  const blocks = log.querySelectorAll(".block");
  if (atEnd && blocks.length > KEEP) blocks[0].remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}
