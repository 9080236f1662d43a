#!/usr/bin/env node
// Walks through a folder, takes the SHA-256 of each file, and tells how far it is: files:NAME is a
// log, XADDed a few times a second, so that who opens the page in the middle has the whole story.
//
// No library: what Redis is asked is a line of text, see Redis below.
//
//     ./checksums.mjs --redis redis://127.0.0.1:6379 --name photos ~/photos
//     curl -N 'http://127.0.0.1:8080/api/stream?channel=files:photos&since=0'
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { connect } from "node:net";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const FILES_MAX = 100_000; // of one walk
const STEP_MS = 250; // between two entries of the log

// Redis, as far as a publisher needs it: a command is an array of texts with their lengths, and an
// answer begins with "-" where it is an error. One command at a time is under way.
class Redis {
  constructor(url) {
    const { hostname, port, username, password, pathname } = new URL(url);
    const unix = url.startsWith("unix:");
    this.socket = connect(unix ? { path: decodeURIComponent(pathname) } : { host: hostname, port: port || 6379 });
    this.socket.on("error", () => {}); // told by the command that then waits in vain
    this.first = [];
    if (password) this.first.push(["AUTH", decodeURIComponent(username) || "default", decodeURIComponent(password)]);
    if (!unix && pathname.length > 1) this.first.push(["SELECT", pathname.slice(1)]);
  }
  async open() {
    await once(this.socket, "connect");
    for (const command of this.first) await this.do(...command);
  }
  async do(...words) {
    const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
    this.socket.write(`*${words.length}\r\n${parts.join("")}`);
    const [answer] = await once(this.socket, "data", { signal: AbortSignal.timeout(5000) });
    if (answer[0] === 45) throw new Error(`Redis refuses ${words[0]}: ${answer.toString().trim()}`);
  }
  close() {
    this.socket.end();
  }
}

// list gives the files under a folder, with their sizes; links are not followed.
async function list(folder) {
  const files = [];
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || files.length === FILES_MAX) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    files.push({ path, bytes: (await stat(path)).size });
  }
  return files;
}

// checksum reads a file once, piece by piece.
async function checksum(path) {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path)) hash.update(piece);
  return hash.digest("hex");
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { redis: { type: "string" }, name: { type: "string" } },
});
const folder = resolve(positionals[0] ?? ".");
const name = values.name ?? (basename(folder).replace(/[^A-Za-z0-9_.-]/g, "-") || "root");
if (positionals.length > 1 || !/^[A-Za-z0-9_.@=|+-]{1,128}$/.test(name)) {
  console.error("usage: checksums.mjs [--redis URL] [--name NAME] [FOLDER]   (NAME is part of a channel's name)");
  process.exit(2);
}

const redis = new Redis(values.redis ?? process.env.REDIS_URL ?? "redis://127.0.0.1:6379");
const channel = `files:${name}`;
const tell = (status, fields) => {
  const event = { type: "files", name, status, ...fields, timestamp: new Date().toISOString() };
  return redis.do("XADD", channel, "MAXLEN", "~", "1000", "*", "data", JSON.stringify(event));
};
try {
  await redis.open();
  const files = await list(folder);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const all = createHash("sha256"); // of the files' own, in the order of their names
  let done = { files: 0, bytes: 0, failed: 0 };
  let told = 0;
  files.sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const file of files) {
    if (Date.now() - told >= STEP_MS) {
      told = Date.now();
      const progress = bytes > 0 ? Math.min(done.bytes / bytes, 0.999) : 0;
      await tell("processing", { progress, done: done.files, files: files.length, bytes, message: `Reading ${basename(file.path)}` });
    }
    try {
      all.update(await checksum(file.path));
    } catch {
      done.failed++; // gone since it was listed, or not ours to read
    }
    done = { ...done, files: done.files + 1, bytes: done.bytes + file.bytes };
  }
  const message = `${files.length} files, ${bytes} bytes${done.failed > 0 ? `, ${done.failed} of them unreadable` : ""}`;
  await tell("complete", { progress: 1, done: files.length, files: files.length, bytes, sha256: all.digest("hex"), message });
  await redis.do("EXPIRE", channel, "86400");
} catch (error) {
  console.error(`checksums.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  redis.close();
}
