const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;

/**
 * The pause before attempt number `attempt` (from 1), in milliseconds: doubling, and half of it
 * drawn by lot (`random` from 0 to 1), or everybody whom a restart cut would return at once.
 */
export function backoffMs(attempt: number, random: number): number {
  const longest = Math.min(FIRST_MS * 2 ** Math.min(attempt - 1, 10), LONGEST_MS);
  return longest * (0.5 + random / 2);
}
