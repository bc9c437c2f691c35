// What a verdict says and how the bits look, as pieces of the page.
//
// Everything that a file or the service says is put into the page as text, never as markup.

const ROW = 64; // bits of a strip in one row

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

function odds(words) {
  const [front, exponent] = words.split("^");
  const made = element("span", { class: "odds" }, front);
  if (exponent) {
    made.append(element("sup", { "aria-hidden": "true" }, exponent));
    made.append(element("span", { class: "unseen" }, ` to the power of ${exponent}`));
  }
  return made;
}

// One bar for each bit that was read: those that agree with the named key, then, short and red, those
// that differ. Which bits they are stays with the service: together with the image it would be the key.
function strip(named, count) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rows = Math.ceil(count / ROW);
  svg.setAttribute("viewBox", `0 0 ${10 * Math.min(count, ROW)} ${32 * rows - 4}`);
  svg.setAttribute("class", "strip");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${named.matches} of ${count} bits agree`);
  for (let index = 0; index < count; index += 1) {
    const agrees = index < named.matches;
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const top = 32 * Math.floor(index / ROW);
    bar.setAttribute("x", 10 * (index % ROW) + 0.5);
    bar.setAttribute("y", agrees ? top : top + 16);
    bar.setAttribute("width", 9);
    bar.setAttribute("height", agrees ? 28 : 12);
    bar.setAttribute("class", agrees ? "agrees" : "differs");
    svg.append(bar);
  }
  return svg;
}

export function allKeys(count) {
  return count === 1 ? "the one issued key" : `any of the ${plural(count, "issued key")}`;
}

function evidence(entry, named, count) {
  const several = entry.attributed.length > 1;
  return [
    element(
      "p",
      {},
      ...(several ? [element("b", {}, `${named.holder}: `), "at most "] : ["At most "]),
      odds(named.odds),
      ` by chance alone. ${named.matches} of ${count} bits agree.`,
    ),
    strip(named, count),
  ];
}

// The verdict in a word or two, and what stands below it; keys have ``count`` bits.
export function explain({ entry, error, state }, count) {
  if (state === "waiting") return ["Reading…", []];
  if (state === "failed") return ["Not judged", [element("p", {}, error)]];
  if (entry.attributed.length > 0) {
    const holders = entry.attributed.map((named) => named.holder);
    const below = entry.attributed.flatMap((named) => evidence(entry, named, count));
    return [holders.join(" and "), below];
  }
  const [who, agrees] =
    entry.issued === 1
      ? ["The one issued key", "does not agree"]
      : [`None of the ${plural(entry.issued, "issued key")}`, "agrees"];
  const text = `${who} ${agrees} with what was read better than chance allows.`;
  return ["Nobody", [element("p", {}, text)]];
}
