// happy-dom with Node's own fetch: happy-dom's neither tells a server that it was aborted, nor a
// reader that it was cut, without an error that nobody can catch.

import type { Environment } from "vitest/environments";
import { builtinEnvironments } from "vitest/runtime";

const NATIVE = ["fetch", "Request", "Response", "Headers", "AbortController", "AbortSignal", "ReadableStream"] as const;

const environment: Environment = {
  ...builtinEnvironments["happy-dom"],
  name: "happy-dom with Node's fetch",
  async setup(global, options) {
    const native = NATIVE.map((name) => [name, global[name]] as const);
    const made = await builtinEnvironments["happy-dom"].setup(global, options);
    for (const [name, value] of native) {
      Object.defineProperty(global, name, { value, configurable: true, writable: true });
    }
    return made;
  },
};

export default environment;
