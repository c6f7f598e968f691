// Entry: everything here only saves reloading. Without it every page and form works the same.
import { followLog } from "./log.js";
import { watchPage } from "./live.js";

followLog();
watchPage(followLog);

// f jumps to the next failed step.
document.addEventListener("keydown", (event) => {
  if (event.key !== "f" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
  const failed = [...document.querySelectorAll(".steps .dot.bad")].map((dot) => dot.closest("a"));
  if (failed.length === 0) return;
  const next = failed[(failed.indexOf(document.activeElement) + 1) % failed.length];
  next.focus();
});
