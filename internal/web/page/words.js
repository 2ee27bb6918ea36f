// What the other files share: elements of the page and words for figures.
// Text from outside goes through textContent only.

export const byID = (id) => document.getElementById(id);

// element makes an element with text, of a class.
export function element(tag, text = "", classes = "") {
  const e = document.createElement(tag);
  if (text !== "") e.textContent = text;
  if (classes) e.className = classes;
  return e;
}

// put writes text unless it is there: a selection stays.
export function put(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// cell makes a cell of a table, whose label stands beside it on small screens.
export function cell(label, text, classes = "") {
  const td = element("td", text, classes);
  td.dataset.label = label;
  td.setAttribute("role", "cell");
  return td;
}

export function tableRow() {
  const tr = element("tr");
  tr.setAttribute("role", "row");
  return tr;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

// span tells a time of seconds with two units at most.
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}

// delay tells a latency of seconds.
export function delay(seconds) {
  if (seconds < 0) return "more";
  const digits = (n) => Number(n.toPrecision(3)).toString();
  if (seconds < 0.001) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  return `${digits(seconds)} s`;
}

export function clock(ms) {
  const d = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

// mood is the class of a phase.
export function mood(phase) {
  if (phase === "Running" || phase === "Idle") return "good";
  if (phase === "Failed" || phase === "Unhealthy") return "bad";
  if (phase === "Waiting" || phase === "Unplaced") return "warn";
  return "";
}
