// What the browser keeps for the page. Browsers may keep nothing, or no more than so much: the rest is known as long as the page is open.

/** A memory of texts by their names. `open` gives the browser's, and may throw. */
function memory(open) {
  const own = new Map();
  const attempt = (act) => { try { return act(open()) ?? null; } catch { return undefined; } };
  return {
    /** The text of a name, or null. */
    get: (name) => own.get(name) ?? attempt((kept) => kept.getItem(name)) ?? null,
    set(name, text) {
      own.delete(name);
      if (attempt((kept) => kept.setItem(name, text)) !== undefined) return;
      // What was there before would be taken for what is there now.
      this.remove(name);
      own.set(name, text);
    },
    remove(name) {
      own.delete(name);
      attempt((kept) => kept.removeItem(name));
    },
    /** The value that was kept as JSON, or null. */
    value(name) { try { return JSON.parse(this.get(name)); } catch { return null; } },
  };
}

/** Outlives the browser. */
export const forGood = memory(() => localStorage);
/** Until the tab is closed. */
export const forTab = memory(() => sessionStorage);
