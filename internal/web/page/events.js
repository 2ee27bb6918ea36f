// Lists of events, the newest first. One that happens again comes again with
// its count and takes the place of the older.

import { byID, cell, clock, tableRow } from "./words.js";

const most = 1000; // rows that are kept

export class EventList {
  constructor(body, withObject) {
    this.body = body;
    this.withObject = withObject;
    this.rows = new Map();
    body.parentElement.setAttribute("role", "table");
  }

  clear() {
    this.rows.clear();
    this.body.replaceChildren();
  }

  add(e) {
    const key = JSON.stringify([e.kind, e.name, e.device, e.reason, e.message, e.first]);
    const old = this.rows.get(key);
    if (old?.event.last === e.last && old.event.count === e.count) return null; // told again after a pause
    old?.remove();
    const row = tableRow();
    row.event = e;
    row.append(cell("Last seen", clock(e.last), "fixed number"));
    if (this.withObject) row.append(cell("Object", about(e)));
    row.append(cell("Reason", e.reason, e.warning ? "warn" : ""), cell("Count", String(e.count), "number"), cell("Message", e.message));
    let next = this.body.firstElementChild;
    while (next && next.event.last > e.last) next = next.nextElementSibling;
    this.body.insertBefore(row, next);
    this.rows.delete(key);
    this.rows.set(key, row);
    if (this.rows.size > most) {
      const [first, oldest] = this.rows.entries().next().value;
      oldest.remove();
      this.rows.delete(first);
    }
    return row;
  }
}

function about(e) {
  if (e.kind) return `${e.kind.toLowerCase()}/${e.name}`;
  return e.device || "machine";
}

const all = new EventList(byID("event-rows"), true);

function passes(row) {
  const e = row.event;
  if (byID("warnings").checked && !e.warning) return false;
  const words = byID("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${about(e)} ${e.device} ${e.reason} ${e.message}`.toLowerCase();
  return words.every((w) => text.includes(w));
}

function count() {
  const shown = [...all.rows.values()].filter((r) => !r.hidden).length;
  byID("event-count").textContent = shown === all.rows.size ? `${shown} events` : `${shown} of ${all.rows.size} events`;
}

let counting = 0;

export function showEvent(e) {
  const row = all.add(e);
  if (!row) return;
  row.hidden = !passes(row);
  counting ||= setTimeout(() => { counting = 0; count(); }, 100);
}

function filter() {
  for (const row of all.rows.values()) row.hidden = !passes(row);
  count();
}

byID("filter").addEventListener("input", filter);
byID("warnings").addEventListener("change", filter);
