import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

/** The key that public/theme.js reads before the first paint. */
const KEY = "millrace.theme";

/** The theme in force. */
export function theme(): Theme {
  return document.documentElement.dataset["theme"] === "dark" ? "dark" : "light";
}

function chosen(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Sets the theme for this browser. The one that the system prefers is not kept, so that it is followed from then on. */
export function chooseTheme(next: Theme): void {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  try {
    if (next === system) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // Storage is forbidden: it holds for this visit.
  }
  document.documentElement.dataset["theme"] = next;
}

/** Follows the system where nothing was chosen, and the other tabs where something was. */
function follow(changed: () => void): () => void {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const again = () => {
    const stored = chosen();
    const next = stored === "light" || stored === "dark" ? stored : dark.matches ? "dark" : "light";
    document.documentElement.dataset["theme"] = next;
  };
  const watch = new MutationObserver(changed);
  watch.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  dark.addEventListener("change", again);
  addEventListener("storage", again);
  return () => {
    watch.disconnect();
    dark.removeEventListener("change", again);
    removeEventListener("storage", again);
  };
}

export function useTheme(): Theme {
  return useSyncExternalStore(follow, theme, () => "light");
}
