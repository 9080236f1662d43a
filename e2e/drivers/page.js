// What a browser's page does, whatever drives the browser. Each function is sent to the page as its own
// text, so it uses nothing of this file; the page has a function say.

// protocol says by which protocol the page came.
export function protocol() {
  return performance.getEntriesByType("navigation")[0].nextHopProtocol;
}

// EventSource hands over only the event names it was asked for: they are the names.
export function openEventSource([path, names, protocol]) {
  const source = new EventSource(path);
  source.onopen = () => say({ kind: "open", reason: protocol });
  source.onerror = () => say({ kind: "error", reason: source.readyState === 2 ? "closed" : "connecting" });
  for (const name of names) {
    source.addEventListener(name, (event) => say({ kind: "event", event: name, id: event.lastEventId, data: event.data }));
  }
}

export function openWebSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  globalThis.socket = new WebSocket(url);
  socket.onopen = () => say({ kind: "open" });
  socket.onmessage = (event) => say({ kind: "message", data: event.data });
  socket.onclose = (event) => say({ kind: "close", code: event.code, reason: event.reason });
}

export function act([send, close]) {
  if (close) socket.close();
  else socket.send(send);
}
