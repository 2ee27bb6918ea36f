// One stream of server-sent events.

// follow calls handlers by the event's name, and problems with the reasons
// why something is not up to date. It returns what ends it.
export function follow(url, handlers, problems) {
  const source = new EventSource(url);
  const reasons = new Map(); // by source
  const tell = () => problems([...new Set(reasons.values())]);
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (e) => handle(JSON.parse(e.data)));
  }
  source.addEventListener("problem", (e) => {
    const p = JSON.parse(e.data);
    if (p.reason) reasons.set(p.source, p.reason);
    else reasons.delete(p.source);
    tell();
  });
  source.addEventListener("open", () => {
    reasons.clear();
    tell();
  });
  source.addEventListener("error", () => {
    reasons.clear();
    reasons.set("page", source.readyState === EventSource.CLOSED
      ? "This page was refused: open the address that oscine web printed last."
      : "The command oscine web does not answer: it has ended, or is busy. Trying again.");
    tell();
  });
  return () => source.close();
}
