// The line protocol of all drivers. Out, one JSON object a line:
//   {"kind":"started"}                                    from a client that is slow to start, before it connects
//   {"kind":"open","reason":PROTOCOL}                     the browser's page came by this protocol, such as h2
//   {"kind":"event","event":NAME,"id":ID,"data":TEXT}     from an SSE stream
//   {"kind":"message","data":TEXT}                        from a WebSocket
//   {"kind":"close","code":N,"reason":TEXT}
//   {"kind":"error","reason":TEXT}
// In, one JSON object a line: {"send":TEXT} or {"close":N}. The end of the input ends the driver.
import { createInterface } from "node:readline";

export function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

export async function obey(take) {
  for await (const line of createInterface({ input: process.stdin })) await take(JSON.parse(line));
}
