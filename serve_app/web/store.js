/** Small values kept by the browser. Storage may be full or forbidden: then they last as long as the page. */

/** @type {Map<string, string>} */
const memory = new Map();

/**
 * @param {() => Storage} storage a function, as even naming a forbidden storage raises
 * @param {string} name
 */
function kept(storage, name) {
  const key = `ai-assistant.${name}`;
  return {
    /** @returns {string | null} */
    get() {
      try {
        return memory.get(key) ?? storage().getItem(key);
      } catch {
        return null;
      }
    },
    /** @param {string | null} value */
    set(value) {
      memory.delete(key);
      try {
        if (value === null) storage().removeItem(key);
        else storage().setItem(key, value);
      } catch {
        if (value !== null) memory.set(key, value);
      }
    },
  };
}

export const theme = kept(() => localStorage, "theme");
export const model = kept(() => localStorage, "model");
/** The API key lives only as long as the tab. */
export const apiKey = kept(() => sessionStorage, "key");
