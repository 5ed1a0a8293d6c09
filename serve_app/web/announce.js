/** Tells people who cannot see the page what has changed on it. */

/** @param {string} text */
export function announce(text) {
  const region = /** @type {HTMLElement} */ (document.getElementById("announcer"));
  region.textContent = "";
  // The same text twice is announced twice only when the region changes in between.
  requestAnimationFrame(() => {
    region.textContent = text;
  });
}
