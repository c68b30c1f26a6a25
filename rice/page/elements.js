// Building the page. Texts from files become text nodes only: nothing here parses markup.

const byId = (id) => document.getElementById(id);

// Characters that would reorder or hide their neighbours are shown as what they are.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const escapeUnseen = (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
const visible = (text) => String(text).replace(UNSEEN, escapeUnseen);

/** An element with properties (class, data-*, aria-* and other attributes; on*: listeners) and children. */
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : visible(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== "").map(node));
  return element;
}

const node = (child) => (child instanceof Node ? child : document.createTextNode(visible(child)));

/** A table with a head line and lines of cells; the first cell of a line is its header. */
function plainTable(heads, lines, properties = {}) {
  return el("table", { class: "plain", ...properties },
    el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", null, lines.map(([first, ...rest]) =>
      el("tr", null, el("th", { scope: "row" }, first), rest.map((cell) => el("td", null, cell))))));
}

/** Pairs of a name and a value (text, node or list) as a description list. */
const facts = (pairs) =>
  el("dl", { class: "facts" }, pairs.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));

const UNKNOWN = "not stated";
const known = (value) => (value === null || value === undefined || value === "" ? UNKNOWN : value);
