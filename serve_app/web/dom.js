/** Builds elements. Text only ever enters the page as text nodes, so what was retrieved cannot act. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element: `on…` properties are listeners, booleans set or leave out the attribute.
 *
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Node} parent
 * @param {(Child | Child[])[]} children
 */
export function append(parent, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/**
 * Put `children` in the place of what `parent` holds.
 *
 * @param {Element} parent
 * @param {...(Child | Child[])} children
 */
export function replace(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * The HTML that the server rendered and sanitised. It is parsed in a document of its own, where nothing
 * loads or runs; the page's content policy forbids inline handlers on top.
 *
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function fromServerHtml(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const fragment = document.createDocumentFragment();
  fragment.append(...parsed.body.childNodes);
  return fragment;
}

/**
 * `text` with the given ranges inside <mark>. Ranges may overlap, be unordered or lie outside of the text.
 * The offsets count code points, as the server does, not UTF-16 units.
 *
 * @param {string} text
 * @param {[number, number][]} ranges
 * @returns {(string | HTMLElement)[]}
 */
export function highlighted(text, ranges) {
  const points = Array.from(text);
  const parts = [];
  let at = 0;
  for (const [start, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const from = Math.max(start, at);
    const to = Math.min(end, points.length);
    if (from >= to) continue;
    if (from > at) parts.push(points.slice(at, from).join(""));
    parts.push(h("mark", {}, points.slice(from, to).join("")));
    at = to;
  }
  if (at < points.length) parts.push(points.slice(at).join(""));
  return parts;
}
