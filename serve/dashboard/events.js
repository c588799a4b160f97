// The event list, newest first. New events appear at the top, unless the reader has scrolled
// down: then they wait behind a button. Older ones follow at the bottom on demand.

import { get, pathOf, serverNow } from "./api.js";
import { element, setText, setNotice } from "./element.js";
import { EventRow } from "./event_row.js";
import { day } from "./times.js";
import { count } from "./words.js";

const PAGE = 50;
const MOST_ROWS = 400; // kept while the list is not scrolled
const MOST_HELD = 200;
const EMPTY_PAGES = 8; // pages without a match that are passed over by themselves
const TICK_MS = 10000;

export class Events {
  /**
   * @param filters which events are shown.
   * @param onOpen called with an event's id when it is chosen.
   * @param onChange called with an event that changed.
   */
  constructor({ filters, onOpen, onChange }) {
    this.filters = filters;
    this.onOpen = onOpen;
    this.onChange = onChange;
    this.list = document.getElementById("events-list");
    this.notice = document.getElementById("events-notice");
    this.fresh = document.getElementById("events-new");
    this.older = document.getElementById("events-older");
    this.rows = new Map(); // id -> EventRow, all that are shown
    this.held = new Map(); // id -> event, new ones that wait
    this.early = new Map(); // id -> event, those that arrived before the requested page
    this.days = new Map(); // day -> its heading
    this.cursor = null;
    this.gap = false; // whether there are events between the held ones and the shown ones
    this.atTop = true;
    this.loaded = false;
    this.unseen = 0;
    this.turn = null;
    const top = document.getElementById("events-top");
    new IntersectionObserver(([entry]) => {
      this.atTop = entry.isIntersecting;
      if (this.atTop) this.release();
    }).observe(top);
    this.fresh.addEventListener("click", () => {
      top.scrollIntoView({ block: "end" });
      this.release();
    });
    this.older.addEventListener("click", () => this.loadOlder());
    this.list.addEventListener("keydown", (event) => this.walk(event));
    document.addEventListener("visibilitychange", () => this.countUnseen(0));
    setInterval(() => this.tick(), TICK_MS);
  }

  /** Empties the list and requests its first page. */
  async reload() {
    const turn = (this.turn = Symbol("turn"));
    this.loaded = false;
    this.early.clear();
    this.list.classList.add("loading");
    try {
      const page = await this.page({});
      if (turn !== this.turn) return;
      this.rows.clear();
      this.held.clear();
      this.gap = false;
      this.loaded = true;
      this.cursor = page.next_cursor;
      for (const event of page.events) this.put(event);
      for (const event of this.early.values()) this.take(event, { quiet: true });
      this.early.clear();
      this.render();
    } catch (error) {
      if (turn === this.turn) this.fail(error);
    } finally {
      if (turn === this.turn) this.list.classList.remove("loading");
    }
  }

  /** Requests the newest page and adds its new events. */
  async catchUp() {
    if (!this.loaded) return this.reload();
    const turn = this.turn;
    try {
      const page = await this.page({});
      if (turn !== this.turn) return undefined;
      const known = page.events.some((event) => this.rows.has(event.event_id));
      if (!known && page.next_cursor !== null && this.rows.size) {
        if (this.atTop) return this.reload();
        this.gap = true; // the reader's place comes first
      }
      for (const event of page.events.toReversed()) this.take(event, { quiet: true });
      this.render();
    } catch {
      // The stream shows its state and will call again.
    }
    return undefined;
  }

  /** Takes an event that has just changed. */
  take(event, { quiet = false } = {}) {
    this.filters.learnEvent(event);
    this.onChange(event);
    const id = event.event_id;
    if (!this.loaded) {
      this.early.set(id, event);
      if (this.early.size > MOST_HELD) this.early.delete(this.early.keys().next().value);
      return;
    }
    const known = this.rows.get(id)?.event ?? this.held.get(id);
    if (known !== undefined && known.version >= event.version) return;
    if (!this.filters.admits(event)) {
      this.rows.delete(id);
      this.held.delete(id);
    } else if (this.rows.has(id)) {
      this.rows.get(id).update(event);
    } else if (known !== undefined || this.mustWait(event)) {
      this.held.set(id, event);
    } else if (!this.isBeyond(event)) {
      this.put(event).node.classList.add("arrived");
    }
    if (known === undefined && document.hidden && event.status === "open") {
      this.countUnseen(this.unseen + 1);
    }
    if (!quiet) this.render();
  }

  /** The event of this id, if it is shown. */
  find(id) {
    return this.rows.get(id)?.event;
  }

  /** The id of the event shown before (-1, newer) or after (1, older) another; undefined at ends. */
  neighbour(id, step) {
    const ids = this.order().map((row) => row.event.event_id);
    const at = ids.indexOf(id);
    return at < 0 ? undefined : ids[at + step];
  }

  mustWait(event) {
    const newest = this.order()[0]?.event;
    return !this.atTop && newest !== undefined && before(event, newest);
  }

  /** Whether an event belongs to pages that were not requested yet. */
  isBeyond(event) {
    const oldest = this.order().at(-1)?.event;
    return this.cursor !== null && oldest !== undefined && before(oldest, event);
  }

  release() {
    if (this.gap || this.held.size >= MOST_HELD) {
      this.reload();
      return;
    }
    for (const event of this.held.values()) this.put(event).node.classList.add("arrived");
    this.held.clear();
    this.trim();
    this.render();
  }

  put(event) {
    let row = this.rows.get(event.event_id);
    if (row === undefined) {
      row = new EventRow(event, this.onOpen);
      this.rows.set(event.event_id, row);
    } else if (event.version > row.event.version) {
      row.update(event);
    }
    return row;
  }

  /** Removes the oldest rows of a list that is not scrolled; "older" brings them back. */
  trim() {
    const order = this.order();
    if (!this.atTop || order.length <= MOST_ROWS) return;
    for (const row of order.slice(PAGE)) this.rows.delete(row.event.event_id);
    const last_ms = Date.parse(order[PAGE - 1].event.started_at);
    this.cursor = { end: new Date(last_ms + 1).toISOString() };
  }

  async loadOlder() {
    const turn = this.turn;
    this.older.disabled = true;
    setText(this.older, "Loading …");
    try {
      const from = typeof this.cursor === "string" ? { cursor: this.cursor } : this.cursor;
      const page = await this.page(from ?? {});
      if (turn !== this.turn) return;
      this.cursor = page.next_cursor;
      for (const event of page.events) this.put(event);
      this.render();
      setText(this.older, "Older events");
    } catch (error) {
      setText(this.older, `That did not work: ${error.message}. Try again`);
    } finally {
      this.older.disabled = false;
    }
  }

  /** The next page that is not empty, or the last one. */
  async page(from) {
    let question = { ...this.filters.values, ...from, limit: PAGE };
    for (let number = 0; ; number += 1) {
      const page = await get(pathOf("events"), question);
      for (const event of page.events) this.filters.learnEvent(event);
      if (page.events.length || page.next_cursor === null || number >= EMPTY_PAGES) return page;
      question = { ...question, cursor: page.next_cursor };
    }
  }

  fail(error) {
    this.older.hidden = true;
    const shown = this.rows.size > 0;
    const words = error.status === 401 ? "Sign in to see the events." : `The events cannot be shown: ${error.message}.`;
    setNotice(this.notice, shown ? "" : words);
  }

  order() {
    return [...this.rows.values()].sort((a, b) => (before(a.event, b.event) ? -1 : 1));
  }

  render() {
    if (!this.loaded) return;
    this.trim();
    const now_ms = serverNow();
    const nodes = [];
    const days = new Map();
    for (const row of this.order()) {
      const name = day(Date.parse(row.event.started_at), now_ms);
      if (!days.has(name)) {
        const heading = this.days.get(name) ?? element("li", { className: "day" }, element("h3", {}, name));
        days.set(name, heading);
        nodes.push(heading);
      }
      nodes.push(row.node);
    }
    this.days = days;
    arrange(this.list, nodes);
    const filtered = Object.keys(this.filters.values).length > 0;
    const none = filtered
      ? "Nothing that fits the filter."
      : "Nothing has happened yet. Events appear here by themselves.";
    setNotice(this.notice, this.rows.size ? "" : none);
    this.older.hidden = this.cursor === null;
    const waiting = this.held.size;
    const more = waiting >= MOST_HELD ? `${MOST_HELD} or more new events` : count(waiting, "new event", "new events");
    setNotice(this.fresh, waiting ? `↑ ${more}` : "");
  }

  tick() {
    if (document.hidden) return;
    for (const row of this.rows.values()) row.tick();
    this.render(); // headings change at midnight
  }

  countUnseen(number) {
    this.unseen = document.hidden ? number : 0;
    document.title = this.unseen ? `(${this.unseen}) Storeguard` : "Storeguard";
  }

  /** Arrow keys, Home and End move between rows. */
  walk(event) {
    const buttons = [...this.list.querySelectorAll("button.event")];
    const at = buttons.indexOf(document.activeElement);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    const target = at < 0 ? undefined : buttons[steps[event.key]];
    if (target === undefined) return;
    event.preventDefault();
    target.focus();
  }
}

/** Whether event a stands before event b: newer first, the id breaking ties, as the API pages. */
function before(a, b) {
  const [first, second] = [Date.parse(a.started_at), Date.parse(b.started_at)];
  return first === second ? a.event_id > b.event_id : first > second;
}

/** Makes the list hold exactly these nodes in this order, without moving those that stay. */
function arrange(list, nodes) {
  const kept = new Set(nodes);
  for (const node of [...list.children]) if (!kept.has(node)) node.remove();
  let at = list.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else list.insertBefore(node, at);
  }
}
