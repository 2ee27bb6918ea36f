// The page of a node: everything it shows comes over one stream.

import "./details.js";
import { showEvent } from "./events.js";
import { follow } from "./feed.js";
import { showLatency } from "./latency.js";
import { showLoad, showMap } from "./machine.js";
import { removeObject, showAges, showObject, showObjects } from "./objects.js";
import { byID, element, put, span } from "./words.js";

// The cookie holds the token now: it need not stay in the address.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

let booted = 0;
let about = "";

function showNode(n) {
  document.title = `${n.name} · Oscine`;
  put(byID("node"), n.name);
  booted = Date.now() - 1000 * n.uptime;
  about = `Oscine ${n.version} (${n.mode}) · Linux ${n.kernel} ${n.architecture}`;
  const missing = n.missing ?? [];
  byID("missing").hidden = missing.length === 0;
  byID("missing").replaceChildren(...missing.map((m) => element("li", `Not guaranteed: ${m}`)));
  showTime();
}

function showTime() {
  if (booted) put(byID("about"), `${about} · up ${span((Date.now() - booted) / 1000)}`);
  showAges();
}

function showProblems(reasons) {
  const banner = byID("banner");
  banner.hidden = reasons.length === 0;
  const heading = element("strong", "Not up to date; trying again.");
  banner.replaceChildren(heading, ...reasons.map((r) => element("p", r)));
}

follow("live", {
  node: showNode, map: showMap, load: showLoad, objects: showObjects, object: showObject,
  deleted: removeObject, event: showEvent, latency: showLatency,
}, showProblems);
setInterval(showTime, 1000);
