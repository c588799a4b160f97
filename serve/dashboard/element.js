// Builds DOM nodes. Text stays text: nothing in the dashboard parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with properties and children; strings become text nodes, null and false are left out.
 * Keys with a dash, `role`, `for` and those of `data` become attributes, `on` holds listeners.
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key === "on") {
      for (const [name, listener] of Object.entries(value)) node.addEventListener(name, listener);
    } else if (key === "data") {
      Object.assign(node.dataset, value);
    } else if (key.includes("-") || key === "role" || key === "for") {
      node.setAttribute(key, value);
    } else {
      node[key] = value;
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false));
  return node;
}

/** An SVG element with attributes. */
export function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Sets a node's text only where it changes, so that screen readers announce changes alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a text in a node, or hides the node where there is none. */
export function setNotice(node, text) {
  node.hidden = !text;
  setText(node, text ?? "");
}

/** A description list of [term, text or node] pairs; pairs without a value are left out. */
export function facts(pairs) {
  const list = element("dl", { className: "facts" });
  for (const [term, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(element("div", {}, element("dt", {}, term), element("dd", {}, value)));
  }
  return list;
}
