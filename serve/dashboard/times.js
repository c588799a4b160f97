// Moments and durations in words, in the reader's time zone and customs.

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const SHORT_DAY = new Intl.DateTimeFormat("en", { weekday: "short", day: "numeric", month: "short" });
const LONG_DAY = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long" });
const YEAR_DAY = new Intl.DateTimeFormat("en", { dateStyle: "long" });
const WEEKDAY = new Intl.DateTimeFormat("en", { weekday: "short" });
const DATE = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const HOUR = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** "12 s", "3 min 20 s", "1 h 5 min", "2 days 3 h". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return joined(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(whole / 60);
  if (minutes < 24 * 60) return joined(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  const days = Math.floor(hours / 24);
  return joined(days, days === 1 ? "day" : "days", hours % 24, "h");
}

/** The age of a live picture: "0.4 s", "12 s", "2 min". */
export function pictureAge(seconds) {
  return seconds < 9.95 ? `${Math.max(0, seconds).toFixed(1)} s` : duration(seconds);
}

function joined(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

/** "just now", "40 s ago", "5 min ago", "2 h ago", "3 days ago"; of the future, "soon". */
export function ago(moment_ms, now_ms) {
  const seconds = (now_ms - moment_ms) / 1000;
  if (seconds < -5) return "soon";
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds / 10) * 10 || 5} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

/** The time of day, with seconds. */
export function clock(moment_ms) {
  return CLOCK.format(moment_ms);
}

/** The time of day, with the day before it unless that is today. */
export function stamp(moment_ms, now_ms) {
  const days = daysBetween(moment_ms, now_ms);
  return days === 0 ? clock(moment_ms) : `${SHORT_DAY.format(moment_ms)}, ${clock(moment_ms)}`;
}

/** Day and time in full, with the zone. */
export function full(moment_ms) {
  return FULL.format(moment_ms);
}

/** "Today", "Yesterday", "Thursday 20 November", or with the year where that is another one. */
export function day(moment_ms, now_ms) {
  const days = daysBetween(moment_ms, now_ms);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const same = new Date(moment_ms).getFullYear() === new Date(now_ms).getFullYear();
  return (same ? LONG_DAY : YEAR_DAY).format(moment_ms);
}

/** "Thu 20 Nov". */
export function shortDay(moment_ms) {
  return SHORT_DAY.format(moment_ms);
}

/** "Thu". */
export function weekday(moment_ms) {
  return WEEKDAY.format(moment_ms);
}

/** "20 Nov". */
export function date(moment_ms) {
  return DATE.format(moment_ms);
}

/** The time of day without seconds. */
export function hour(moment_ms) {
  return HOUR.format(moment_ms);
}

/** The midnight that begins the day some days before the one that a moment is in. */
export function midnight(moment_ms, daysBefore = 0) {
  const day = new Date(moment_ms);
  day.setHours(12, 0, 0, 0); // which every day has; where clocks change at midnight, not that
  day.setDate(day.getDate() - daysBefore);
  return day.setHours(0, 0, 0, 0);
}

function daysBetween(moment_ms, now_ms) {
  return Math.round((midnight(now_ms) - midnight(moment_ms)) / 86400000);
}
