/** Line icons, drawn from path data so that no file has to be loaded for them. */

const SVG = "http://www.w3.org/2000/svg";

/** @type {Record<string, string>} */
const PATHS = {
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14Zm5 12 4 4",
  ask: "M4 5.5h16v11H11l-5 4v-4H4Z",
  rfc: "M6 3h8l4 4v14H6Zm8 0v4h4M9 12h6M9 16h6",
  health: "M3 12h4l2.5-6 5 12 2.5-6h4",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4m0-12.8L17 7M7 17l-1.4 1.4",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5Z",
  close: "m6 6 12 12M18 6 6 18",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  copy: "M9 9h11v11H9Zm-5 6V4h11",
  download: "M12 4v11m-5-4 5 5 5-5M5 20h14",
  stop: "M7 7h10v10H7Z",
  send: "M12 19V5m-6 6 6-6 6 6",
  link: "M9 6H5v13h13v-4M13 5h6v6m0-6-9 9",
  check: "m5 12.5 4.5 4.5L19 7.5",
  alert: "M12 4 2.5 20h19ZM12 10v5m0 2.5v.1",
  help: "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 2.1m0 3.2v.1",
  plus: "M12 5v14M5 12h14",
  retry: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  up: "M7 11v9H4v-9Zm0 0 4-7.5a2 2 0 0 1 2.6 2.4L12.7 9H19a1.8 1.8 0 0 1 1.8 2.2l-1.6 7.2A2 2 0 0 1 17.2 20H7",
  down: "M17 13V4h3v9Zm0 0-4 7.5a2 2 0 0 1-2.6-2.4l.9-3.1H5a1.8 1.8 0 0 1-1.8-2.2l1.6-7.2A2 2 0 0 1 6.8 4H17",
  star: "m12 3.8 2.6 5.3 5.9.9-4.3 4.1 1 5.9-5.2-2.8-5.2 2.8 1-5.9-4.3-4.1 5.9-.9Z",
  models: "M4 7.5 12 3l8 4.5v9L12 21l-8-4.5Zm0 0 8 4.5 8-4.5M12 12v9",
  spark: "M12 3.5 13.9 10l6.6 2-6.6 2L12 20.5 10.1 14 3.5 12l6.6-2Z",
};

/**
 * A line icon; it is decoration, so it is hidden from screen readers.
 *
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
