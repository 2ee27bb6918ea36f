// The tables of objects, one for each kind.

import { byID, cell, element, mood, put, span, tableRow } from "./words.js";

const tables = new Map(); // by kind: body, columns, rows by name

// showObjects takes the whole list: what is not in it has gone.
export function showObjects(kinds) {
  byID("no-objects").hidden = true;
  for (const kind of kinds) {
    const table = tables.get(kind.kind) ?? addTable(kind);
    const names = new Set(kind.rows.map((r) => r.name));
    for (const name of [...table.rows.keys()]) if (!names.has(name)) removeObject({ kind: kind.kind, name });
    kind.rows.forEach(showObject);
    table.none.hidden = kind.rows.length > 0;
    table.whole.hidden = kind.rows.length === 0;
  }
}

function addTable(kind) {
  const common = ["Name", "Phase", "Placement", "CPUs", "Restarts", "Age"];
  const own = kind.columns.map((c) => c.charAt(0) + c.slice(1).toLowerCase());
  const labels = [...common, ...own, "Message"];
  const whole = element("table");
  whole.setAttribute("role", "table");
  whole.setAttribute("aria-label", kind.title);
  const head = tableRow();
  for (const label of labels) {
    const th = element("th", label);
    th.scope = "col";
    head.append(th);
  }
  const thead = element("thead");
  thead.append(head);
  const body = element("tbody");
  whole.append(thead, body);
  const none = element("p", `This node has no ${kind.title}.`, "dim");
  byID("objects").append(element("h2", kind.title), none, whole);
  const table = { whole, none, body, labels, rows: new Map() };
  tables.set(kind.kind, table);
  return table;
}

// showObject adds or changes one row.
export function showObject(o) {
  const table = tables.get(o.kind);
  if (!table) return; // the list is on its way
  let row = table.rows.get(o.name);
  if (!row) {
    row = tableRow();
    table.labels.forEach((label, i) => row.append(cell(label, "", i >= 3 && i <= 5 ? "number" : "")));
    const link = element("a", o.name);
    link.href = `#${encodeURIComponent(o.kind)}/${encodeURIComponent(o.name)}`;
    row.firstElementChild.append(link);
    table.rows.set(o.name, row);
    const after = [...table.rows.keys()].filter((n) => n > o.name).sort()[0];
    table.body.insertBefore(row, after === undefined ? null : table.rows.get(after));
    table.none.hidden = true;
    table.whole.hidden = false;
  }
  row.dataset.created = o.created;
  const texts = [o.phase, o.placement, o.cpus, String(o.restarts), "", ...o.cells, o.message];
  texts.forEach((text, i) => i !== 4 && put(row.children[i + 1], text || (i === texts.length - 1 ? "" : "–")));
  row.children[1].className = `fixed ${mood(o.phase)}`;
  showAge(row);
}

export function removeObject(o) {
  const table = tables.get(o.kind);
  table?.rows.get(o.name)?.remove();
  table?.rows.delete(o.name);
  if (table && table.rows.size === 0) {
    table.none.hidden = false;
    table.whole.hidden = true;
  }
}

function showAge(row) {
  const created = Number(row.dataset.created);
  put(row.children[5], created > 0 ? span((Date.now() - created) / 1000) : "–");
}

export function showAges() {
  for (const table of tables.values()) table.rows.forEach(showAge);
}
