// How many people came, by hour or by day, in all and by an attribute's label.

import { get, pathOf, serverNow } from "./api.js";
import { element, setText, setNotice } from "./element.js";
import { date, hour, midnight, shortDay, weekday } from "./times.js";
import { count, percent, plain } from "./words.js";

const REFRESH_MS = 30000;
const HOUR_S = 3600;
const UNKNOWN = "not told";
const OTHERS = "others";
const TONES = 5; // number of labels with their own colour

/** Spans offered: the days before today at which they begin, and how many days they have. */
const SPANS = new Map([
  ["today", { name: "Today", before: 0, days: 1 }],
  ["yesterday", { name: "Yesterday", before: 1, days: 1 }],
  ["week", { name: "Last 7 days", before: 6, days: 7 }],
  ["month", { name: "Last 30 days", before: 29, days: 30 }],
]);

export class VisitorsView {
  /**
   * @param onOpen called when the view opens.
   * @param onClose called when it closes.
   */
  constructor({ onOpen, onClose }) {
    this.dialog = document.getElementById("visitors-view");
    this.cameras = [];
    this.onOpen = onOpen;
    document.getElementById("visitors-open").addEventListener("click", () => this.open());
    this.dialog.addEventListener("close", () => {
      clearTimeout(this.timer);
      this.turn = null;
      onClose();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
  }

  /** Offers cameras. */
  learnCameras(statuses) {
    if (statuses === null) return;
    this.cameras = statuses.map(({ id }) => id);
    if (this.dialog.open) offer(this.camera, this.cameras);
  }

  /** Shows the view. */
  async open() {
    this.onOpen();
    this.build();
    offer(this.camera, this.cameras);
    this.dialog.showModal();
    try {
      const { attributes } = await get(pathOf("analytics", "attributes"));
      offer(this.attribute, attributes, plain);
      this.attribute.parentNode.hidden = !attributes.length;
      if (attributes.length) this.attribute.value = attributes[0];
    } catch {
      // The request for the counts will show what is wrong.
    }
    this.refresh();
  }

  build() {
    this.shown = null;
    const onChange = () => this.refresh();
    const choice = (...options) => element("select", { on: { change: onChange } }, options);
    this.span = choice(...[...SPANS].map(([value, { name }]) => element("option", { value }, name)));
    this.span.autofocus = true;
    this.camera = choice(element("option", { value: "" }, "All cameras"));
    this.attribute = choice(element("option", { value: "" }, "Nothing"));
    this.total = element("p", { className: "total", role: "status" }, "Counting …");
    this.fault = element("p", { className: "fault", role: "alert", hidden: true });
    this.legend = element("ul", { className: "legend" });
    this.chart = element("div", { className: "chart", "aria-hidden": "true" });
    this.table = element("table", { className: "counts" });
    this.dialog.replaceChildren(
      element(
        "div",
        { className: "view-head" },
        element("h2", { id: "visitors-view-title" }, "Visitors"),
        element("button", {
          type: "button", className: "close", "aria-label": "Close",
          on: { click: () => this.dialog.close() },
        }, "×"),
      ),
      element(
        "div",
        { className: "visitors" },
        element(
          "form",
          { className: "choices", on: { submit: (event) => event.preventDefault() } },
          element("label", {}, "When ", this.span),
          element("label", {}, "Camera ", this.camera),
          element("label", { hidden: true }, "Told apart by ", this.attribute),
        ),
        this.fault,
        this.total,
        this.legend,
        this.chart,
        element("details", {}, element("summary", {}, "As a table"), this.table),
        element(
          "p",
          { className: "note" },
          "Each person is counted once for every camera that sees them, when it first sees them. " +
            "The newest are missing until the track log has been written, a minute or so.",
        ),
      ),
    );
  }

  /** Requests the counts now, and again while the view is visible. */
  async refresh() {
    clearTimeout(this.timer);
    if (!this.dialog.open) return;
    const turn = (this.turn = Symbol("turn"));
    const { before, days } = SPANS.get(this.span.value);
    const now_ms = serverNow();
    const attribute = this.attribute.value;
    const query = {
      start: new Date(midnight(now_ms, before)).toISOString(),
      end: new Date(midnight(now_ms, before - days)).toISOString(),
      bucket_s: HOUR_S,
      camera: this.camera.value,
      attribute,
    };
    try {
      const answer = await get(pathOf("analytics", attribute ? "baskets" : "visitors"), query);
      if (turn !== this.turn) return;
      setNotice(this.fault, "");
      this.shown = JSON.stringify(query);
      this.show(answer, days > 1 ? byDay(answer.buckets) : byHour(answer.buckets), attribute);
    } catch (error) {
      if (turn !== this.turn) return;
      setNotice(this.fault, `The visitors cannot be counted: ${error.message}.`);
      if (this.shown !== JSON.stringify(query)) this.clear(); // they belong to another query
    }
    if (!document.hidden) this.timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  clear() {
    this.shown = null;
    setText(this.total, "");
    for (const part of [this.legend, this.chart, this.table]) part.replaceChildren();
  }

  show(answer, columns, attribute) {
    const series = attribute ? seriesOf(answer) : [{ name: "visitors", of: (one) => one.visitors }];
    series.forEach((one, number) => { one.tone = one.tone ?? String(number); });
    setText(this.total, answer.visitors ? count(answer.visitors, "visitor", "visitors") : "Nobody came.");
    this.legend.hidden = !attribute || !answer.visitors;
    this.legend.replaceChildren(...series.map((one) => {
      const number = one.of(answer);
      return element(
        "li",
        {},
        element("span", { className: "swatch", data: { tone: one.tone } }),
        `${one.name} `,
        element("strong", {}, String(number)),
        element("span", { className: "muted" }, ` ${percent(number / Math.max(answer.visitors, 1))}`),
      );
    }));
    this.chart.replaceChildren(...scale(columns), bars(columns, series));
    this.table.replaceChildren(
      element("thead", {}, element(
        "tr",
        {},
        element("th", { scope: "col" }, "When"),
        element("th", { scope: "col" }, "Visitors"),
        attribute ? series.map(({ name }) => element("th", { scope: "col" }, name)) : [],
      )),
      element("tbody", {}, columns.map((column) => element(
        "tr",
        {},
        element("th", { scope: "row" }, column.name),
        element("td", {}, String(column.visitors)),
        attribute ? series.map((one) => element("td", {}, String(one.of(column)))) : [],
      ))),
    );
  }
}

/** Keeps a select's first option and offers these after it, keeping the choice. */
function offer(select, values, name = (value) => value) {
  const chosen = select.value;
  const known = values.includes(chosen) || chosen === "" ? values : [...values, chosen];
  if (select.length === known.length + 1 && known.every((value, i) => select.options[i + 1].value === value)) return;
  select.replaceChildren(
    select.options[0],
    ...known.map((value) => element("option", { value }, name(value))),
  );
  select.value = chosen;
}

/** What the bars consist of: the commonest labels, the others together, and those without one. */
function seriesOf({ labels }) {
  const names = Object.keys(labels).sort((a, b) => labels[b] - labels[a] || a.localeCompare(b));
  const shown = names.slice(0, names.length > TONES ? TONES - 1 : TONES);
  const rest = names.slice(shown.length);
  return [
    ...shown.map((name) => ({ name, of: (one) => one.labels[name] ?? 0 })),
    ...(rest.length
      ? [{ name: OTHERS, of: (one) => rest.reduce((sum, name) => sum + (one.labels[name] ?? 0), 0) }]
      : []),
    { name: UNKNOWN, tone: "unknown", of: (one) => one.unknown },
  ];
}

function byHour(buckets) {
  return buckets.map((bucket) => {
    const start_ms = Date.parse(bucket.start);
    const name = hour(start_ms);
    const end = hour(start_ms + HOUR_S * 1000);
    return { labels: {}, unknown: 0, ...bucket, name: `${name} to ${end}`, tick: name };
  });
}

/** Days have 23 to 25 hours, so the server counts hours. */
function byDay(buckets) {
  const days = new Map();
  for (const bucket of buckets) {
    const start_ms = midnight(Date.parse(bucket.start));
    if (!days.has(start_ms)) {
      days.set(start_ms, { visitors: 0, unknown: 0, labels: {}, name: shortDay(start_ms), start_ms });
    }
    const day = days.get(start_ms);
    day.visitors += bucket.visitors;
    day.unknown += bucket.unknown ?? 0;
    for (const [label, number] of Object.entries(bucket.labels ?? {})) {
      day.labels[label] = (day.labels[label] ?? 0) + number;
    }
  }
  const tick = days.size > 7 ? date : weekday;
  return [...days.values()].map((day) => ({ ...day, tick: tick(day.start_ms) }));
}

/** The highest number that the chart has room for: even, round, and no less than any column. */
function ceiling(columns) {
  const most = Math.max(2, ...columns.map(({ visitors }) => visitors));
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((top) => top >= most && top % 2 === 0);
}

function scale(columns) {
  const top = ceiling(columns);
  return [top, top / 2, 0].map((value) => {
    const line = element("div", { className: "rung" }, element("span", {}, String(value)));
    line.style.setProperty("--at", value / top);
    return line;
  });
}

function bars(columns, series) {
  const top = ceiling(columns);
  const every = Math.ceil(columns.length / 8);
  return element("div", { className: "bars" }, columns.map((column, number) => {
    const parts = series.map((one) => ({ ...one, number: one.of(column) })).filter((one) => one.number);
    const people = count(column.visitors, "visitor", "visitors");
    const labels = parts.map((one) => `${one.number} ${one.name}`).join(", ");
    const title = `${column.name}: ${people}${series.length > 1 && labels ? ` (${labels})` : ""}`;
    return element(
      "div",
      { className: "column", title },
      element("div", { className: "stack" }, parts.map((one) => {
        const part = element("div", { className: "part", data: { tone: one.tone } });
        part.style.setProperty("--share", one.number / top);
        return part;
      })),
      element("span", { className: "tick" }, number % every === 0 ? column.tick : ""),
    );
  }));
}
