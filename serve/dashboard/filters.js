// The filters above the event list: which events are shown, kept in the page's address.

import { get, pathOf } from "./api.js";
import { element, setNotice } from "./element.js";
import { TYPES } from "./words.js";

const NAMES = ["camera", "type", "zone", "status", "start", "end"];
const SETTLE_MS = 250;

export class Filters {
  /** @param onChange called when a filter has changed. */
  constructor({ onChange }) {
    this.onChange = onChange;
    this.form = document.getElementById("filters");
    this.toggle = document.getElementById("filters-toggle");
    this.fault = document.getElementById("filters-fault");
    this.zones = new Map(); // zone -> cameras it is known of
    this.requested = new Set();
    for (const [type, name] of TYPES) this.offer("type", type, name);
    this.restore();
    this.toggle.addEventListener("click", () => this.show(this.form.hidden));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.settle());
    this.form.addEventListener("reset", () => setTimeout(() => this.apply()));
    this.form.elements.camera.addEventListener("change", () => this.offerZones());
    this.keep();
  }

  /** The values given, by name; times as RFC 3339. */
  get values() {
    const given = {};
    for (const name of NAMES) {
      const value = this.form.elements[name].value;
      if (value) given[name] = name === "start" || name === "end" ? moment(value) : value;
    }
    return given;
  }

  /** Whether an event matches all filters, by the API's rules. */
  admits(event) {
    const { camera, type, zone, status, start, end } = this.values;
    const started = Date.parse(event.started_at);
    return (
      (!camera || event.camera_id === camera) &&
      (!type || event.type === type) &&
      (!zone || event.zone_id === zone) &&
      (!status || event.status === status) &&
      (!start || started >= Date.parse(start)) &&
      (!end || started < Date.parse(end))
    );
  }

  /** Filters for one camera's events alone. */
  only(cameraId) {
    for (const name of NAMES) this.form.elements[name].value = "";
    this.offer("camera", cameraId);
    this.form.elements.camera.value = cameraId;
    this.show(true);
    this.apply();
  }

  /** Offers cameras, and requests the zones of each once. */
  async learnCameras(statuses) {
    for (const { id } of statuses ?? []) {
      this.offer("camera", id);
      if (this.requested.has(id)) continue;
      this.requested.add(id);
      try {
        const { settings } = await get(pathOf("cameras", id));
        for (const zone of settings.zones ?? []) this.learnZone(zone.id, id);
      } catch {
        this.requested.delete(id);
      }
    }
  }

  /** Offers what an event names, such as a zone that the settings no longer have. */
  learnEvent(event) {
    this.offer("camera", event.camera_id);
    this.offer("type", event.type);
    if (event.zone_id) this.learnZone(event.zone_id, event.camera_id);
  }

  learnZone(zone, camera) {
    if (!this.zones.has(zone)) this.zones.set(zone, new Set());
    const cameras = this.zones.get(zone);
    if (cameras.has(camera)) return;
    cameras.add(camera);
    this.offerZones();
  }

  offerZones() {
    const camera = this.form.elements.camera.value;
    for (const [zone, cameras] of this.zones) {
      const option = this.offer("zone", zone);
      option.hidden = camera !== "" && !cameras.has(camera);
    }
  }

  offer(name, value, text = value) {
    const select = this.form.elements[name];
    let option = [...select.options].find((one) => one.value === value);
    if (option === undefined) {
      option = element("option", { value }, text);
      select.append(option);
    }
    return option;
  }

  show(shown) {
    this.form.hidden = !shown;
    this.toggle.setAttribute("aria-expanded", String(shown));
  }

  settle() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.apply(), SETTLE_MS);
  }

  apply() {
    clearTimeout(this.timer);
    const { start, end } = this.values;
    const wrong = start && end && Date.parse(start) >= Date.parse(end);
    setNotice(this.fault, wrong ? "'From' has to be before 'To'." : "");
    if (wrong) return;
    this.offerZones();
    this.keep();
    this.onChange();
  }

  keep() {
    const query = new URLSearchParams();
    for (const name of NAMES) {
      const value = this.form.elements[name].value;
      if (value) query.set(name, value);
    }
    const number = [...query].length;
    this.toggle.textContent = number ? `Filter (${number})` : "Filter";
    const address = number ? `?${query}` : location.pathname;
    if (location.search !== (number ? `?${query}` : "")) history.replaceState(null, "", address);
  }

  restore() {
    const query = new URLSearchParams(location.search);
    for (const name of NAMES) {
      const value = query.get(name);
      if (!value) continue;
      if (name === "camera" || name === "zone") this.offer(name, value);
      this.form.elements[name].value = value;
    }
    this.show(Object.keys(this.values).length > 0);
  }
}

/** A local date and time as RFC 3339 UTC; "" where it is none. */
function moment(local) {
  const date = new Date(local);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
