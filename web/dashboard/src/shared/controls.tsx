import type { ReactNode } from "react";
import { chooseTheme, useTheme } from "./theme.js";

/** One of the page's few signs, drawn in the colour of the text. */
export function Sign({ path, className = "" }: { path: string; className?: string }) {
  return (
    <svg className={`sign ${className}`} viewBox="0 0 24 24" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

const SUN =
  "M12 4V2m0 20v-2m8-8h2M2 12h2m13.66-5.66 1.41-1.41M4.93 19.07l1.41-1.41m0-11.32L4.93 4.93m14.14 14.14-1.41-1.41M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z";
const MOON = "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z";

/** Changes between light and dark, for this browser. */
export function ThemeToggle() {
  const dark = useTheme() === "dark";
  return (
    <button
      type="button"
      className="quiet icon"
      aria-label={dark ? "Use the light theme" : "Use the dark theme"}
      onClick={() => chooseTheme(dark ? "light" : "dark")}
    >
      <Sign path={dark ? SUN : MOON} />
    </button>
  );
}

/** The mark and the name, at the head of both pages. */
export function Brand({ children }: { children?: ReactNode }) {
  return (
    <span className="brand">
      <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
        <path d="M3 11c4.3 0 4.3-3.5 8.7-3.5S16 11 20.3 11 24.7 7.5 29 7.5M3 18c4.3 0 4.3-3.5 8.7-3.5S16 18 20.3 18s4.4-3.5 8.7-3.5M3 25c4.3 0 4.3-3.5 8.7-3.5S16 25 20.3 25s4.4-3.5 8.7-3.5" />
      </svg>
      <span className="name">Millrace</span>
      {children}
    </span>
  );
}
