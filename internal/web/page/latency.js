// How long the models' requests took.

import { byID, delay, element } from "./words.js";

const svgNS = "http://www.w3.org/2000/svg";

export function showLatency(models) {
  const answered = models.filter((m) => m.count > 0 && m.bars.length > 0);
  byID("no-latency").hidden = answered.length > 0;
  byID("histograms").replaceChildren(...answered.map(histogram));
}

function histogram(m) {
  const figure = element("figure", "", "card");
  figure.style.margin = "0";
  const caption = element("figcaption");
  const words = `${m.count.toLocaleString("en")} requests · half within ${delay(m.p50)} · 99 % within ${delay(m.p99)}`;
  caption.append(element("h3", m.model), element("p", words, "dim"));
  figure.append(caption, bars(m, words));
  const axis = element("div", "", "axis");
  const ends = m.bars.map((b) => b.to);
  const marks = ends.length > 4 ? [0, Math.floor((ends.length - 1) / 2), ends.length - 1] : ends.map((_, i) => i);
  for (const i of marks) axis.append(element("span", delay(ends[i])));
  figure.append(axis);
  return figure;
}

function bars(m, words) {
  const svg = document.createElementNS(svgNS, "svg");
  svg.setAttribute("viewBox", `0 0 ${m.bars.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Latency of ${m.model}: ${words}`);
  const most = Math.max(...m.bars.map((b) => b.count));
  m.bars.forEach((b, i) => {
    const rect = document.createElementNS(svgNS, "rect");
    const height = b.count === 0 ? 0 : Math.max(1.5, (100 * b.count) / most);
    for (const [k, v] of Object.entries({ x: i + 0.08, width: 0.84, y: 100 - height, height })) rect.setAttribute(k, String(v));
    const title = document.createElementNS(svgNS, "title");
    title.textContent = `within ${delay(b.to)}: ${b.count}`;
    rect.append(title);
    svg.append(rect);
  });
  return svg;
}
