// One object: its manifest and status, its events, its log.

import { EventList } from "./events.js";
import { follow } from "./feed.js";
import { byID, clock, element, mood, put } from "./words.js";

const mostLines = 5000;

const dialog = byID("details");
const events = new EventList(byID("details-events"), false);
let stop = null;

// open shows the object that the address names, such as #Workload/web.
function open() {
  const [kind, name] = location.hash.slice(1).split("/").map(decodeURIComponent);
  stop?.();
  stop = null;
  if (!name) {
    if (dialog.open) dialog.close();
    return;
  }
  put(byID("details-title"), `${kind} ${name}`);
  put(byID("details-state"), "");
  put(byID("yaml"), "");
  byID("log").replaceChildren();
  events.clear();
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const url = `object?kind=${encodeURIComponent(kind)}&name=${encodeURIComponent(name)}`;
  stop = follow(url, { details, deleted, event: (e) => events.add(e), line }, problems);
}

function details(o) {
  const state = byID("details-state");
  put(state, [o.phase, o.placement, o.cpus && `CPUs ${o.cpus}`, o.message].filter(Boolean).join(" · "));
  state.className = mood(o.phase);
  put(byID("yaml"), o.yaml);
}

function deleted() {
  put(byID("details-state"), "deleted");
  byID("details-state").className = "warn";
}

function problems(reasons) {
  put(byID("details-problem"), reasons.join("\n"));
  byID("details-problem").hidden = reasons.length === 0;
}

function line(l) {
  const log = byID("log");
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
  const row = element("div", "", l.stream === "stderr" ? "stderr" : "");
  row.append(element("time", `${clock(l.time)} `), document.createTextNode(l.text));
  log.append(row);
  while (log.childElementCount > mostLines) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

byID("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  stop?.();
  stop = null;
  if (location.hash.includes("/")) history.replaceState(null, "", location.pathname);
});
window.addEventListener("hashchange", open);
open();
