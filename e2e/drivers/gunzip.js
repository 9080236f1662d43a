// An event stream undone by node's zlib: node gunzip.js URL. Prints the stream's text as it comes, and
// ends with 0 if gzip's own end came, whose checksum zlib compares.
import { get } from "node:http";
import { constants, createGunzip } from "node:zlib";

get(process.argv[2], { headers: { "accept-encoding": "gzip" } }, (response) => {
  if (response.headers["content-encoding"] !== "gzip") throw new Error("the stream is not compressed");
  response
    .pipe(createGunzip({ flush: constants.Z_SYNC_FLUSH }))
    .on("error", (error) => {
      console.error(error.message);
      process.exit(1);
    })
    .on("end", () => process.stdin.destroy())
    .pipe(process.stdout);
});
process.stdin.on("end", () => process.exit(2)).resume();
