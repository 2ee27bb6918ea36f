// The machine: its map and its load.

import { byID, bytes, element, percent, put } from "./words.js";

export function showMap(map) {
  const img = byID("map");
  const url = `map.svg?version=${encodeURIComponent(map.version)}`;
  if (img.getAttribute("src") === url) return;
  img.src = url;
  img.alt = `Map of the machine: ${map.title}`;
  byID("map-link").href = url;
  byID("map-link").hidden = false;
  byID("no-map").hidden = true;
}

const history = [];

export function showLoad(load) {
  const busy = load.cpus.reduce((sum, c) => sum + c.busy, 0) / Math.max(1, load.cpus.length);
  put(byID("cpu-text"), `${percent(busy)} of ${load.cpus.length} CPUs busy`);
  history.push(busy);
  if (history.length > 60) history.shift();
  const points = history.map((b, i) => `${(120 * (60 - history.length + i)) / 59},${31 - 30 * Math.min(1, b)}`);
  byID("cpu-line").firstElementChild.setAttribute("points", points.join(" "));
  showCPUs(load.cpus);
  showMeters(byID("memory"), load.nodes.map((n) => ({ name: `node ${n.id}`, text: n.text, share: n.used / n.total })), "The node tells of no memory.");
  byID("devices-card").hidden = load.devices.length === 0;
  showMeters(byID("devices"), load.devices.map(device), "");
}

function showCPUs(cpus) {
  const box = byID("cpus");
  while (box.childElementCount > cpus.length) box.lastElementChild.remove();
  while (box.childElementCount < cpus.length) box.append(element("div"));
  cpus.forEach((c, i) => {
    const cell = box.children[i];
    if (!cell.firstElementChild) cell.append(element("i"));
    cell.firstElementChild.style.height = `${Math.round(100 * Math.min(1, c.busy))}%`;
    cell.title = `CPU ${c.id}: ${percent(c.busy)}`;
  });
}

function device(d) {
  const parts = [];
  if (d.busy >= 0) parts.push(percent(d.busy));
  if (d.used > 0 && d.total > 0) parts.push(`${bytes(d.used)} of ${bytes(d.total)}`);
  else if (d.total > 0) parts.push(bytes(d.total));
  if (d.celsius > 0) parts.push(`${Math.round(d.celsius)} °C`);
  if (d.watts > 0) parts.push(`${Math.round(d.watts)} W`);
  if (d.health !== "ok") parts.push(d.health + (d.why ? `: ${d.why}` : ""));
  return { name: `${d.id} ${d.model}`.trim(), text: parts.join(" · "), share: d.busy, bad: d.health !== "ok" };
}

// showMeters keeps the rows that are there; a share below 0 has no bar.
function showMeters(box, meters, none) {
  if (meters.length === 0) {
    box.replaceChildren(element("p", none, "dim"));
    return;
  }
  if (!box.firstElementChild?.classList.contains("meter")) box.replaceChildren();
  while (box.childElementCount > meters.length) box.lastElementChild.remove();
  while (box.childElementCount < meters.length) {
    const m = element("div", "", "meter");
    const words = element("div", "", "words");
    words.append(element("span"), element("span"));
    const track = element("div", "", "track");
    track.append(element("i"));
    m.append(words, track);
    box.append(m);
  }
  meters.forEach((m, i) => {
    const [words, track] = box.children[i].children;
    put(words.children[0], m.name);
    put(words.children[1], m.text);
    words.children[1].className = m.bad ? "bad" : "dim";
    track.hidden = !(m.share >= 0);
    track.firstElementChild.style.width = `${Math.round(100 * Math.min(1, Math.max(0, m.share)))}%`;
  });
}
