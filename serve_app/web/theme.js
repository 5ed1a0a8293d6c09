// Loaded before the first paint, unlike a module, so that a chosen theme never flashes.
"use strict";
try {
  const chosen = localStorage.getItem("ai-assistant.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's theme is the default anyway.
}
