// A client made with the npm package ws: node ws.js URL [SUBPROTOCOL...]
import WebSocket from "ws";
import { obey, say } from "./lines.js";

const [url, ...subprotocols] = process.argv.slice(2);
const socket = new WebSocket(url, subprotocols);
socket.on("open", () => say({ kind: "open" }));
socket.on("message", (data, binary) => say({ kind: binary ? "binary" : "message", data: data.toString() }));
socket.on("close", (code, reason) => say({ kind: "close", code, reason: reason.toString() }));
socket.on("unexpected-response", (_, response) => {
  say({ kind: "error", code: response.statusCode, reason: `status ${response.statusCode}` });
  response.resume();
});
socket.on("error", (error) => say({ kind: "error", reason: error.message }));
await obey(({ send, close }) => (close ? socket.close(close) : socket.send(send)));
socket.terminate();
