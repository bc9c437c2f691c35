// The investigator's page: images in, one verdict each (or one for all), a report out.

import { asCsv, asJson, asPage, download } from "./report.js";
import { allKeys, element, explain, plural } from "./verdict.js";

const PARALLEL = 4; // requests at a time
const TRIES = 8; // while the service is busy
const SHOWN = 8; // pictures of a source judged as one
const byId = (id) => document.getElementById(id);

let health = null; // what the service works with
let files = []; // every image given, in order
let groups = []; // what is judged as one: {files, state, entry, error, item}
let urls = new Map(); // file -> address of its picture
let asked = []; // every question and its answer, in order, whatever was removed since
let running = 0;

// Verdicts.

function pictures(group) {
  const made = element("div", { class: "pictures" });
  for (const file of group.files.slice(0, SHOWN)) {
    const image = element("img", { src: urls.get(file), alt: "", loading: "lazy" });
    image.addEventListener("error", () => image.replaceWith(element("span")));
    made.append(image);
  }
  return made;
}

function kindOf({ state, entry }) {
  if (state !== "judged") return state;
  return entry.attributed.length > 0 ? "named" : "nobody";
}

function show(group) {
  const [verdict, below] = explain(group, health?.release.n_bits);
  const [file] = group.files;
  const several = group.files.length > 1;
  const heading = element(
    "h3",
    {},
    element("span", { class: "file" }, several ? `${files.length} images as one` : file.name),
    element("span", { class: "unseen" }, ": "),
    element("span", { class: "verdict" }, verdict),
  );
  group.item.className = `${kindOf(group)} ${several ? "several" : ""}`;
  group.item.replaceChildren(
    pictures(group),
    heading,
    element("div", { class: "below" }, ...below),
  );
  if (!several) {
    const button = element("button", { type: "button", class: "remove" }, "Remove");
    button.setAttribute("aria-label", `Remove ${file.name}`);
    button.addEventListener("click", () => remove(group));
    group.item.append(button);
  }
}

// Those with a name first, then as they were given; nobody who is not named is ranked.
function arrange() {
  const rank = { named: 0, nobody: 1, failed: 2 };
  const after = groups.toSorted((one, other) => rank[kindOf(one)] - rank[kindOf(other)]);
  if (after.some((group, index) => group.item !== byId("list").children[index])) {
    byId("list").replaceChildren(...after.map((group) => group.item));
  }
}

function filter() {
  const wanted = byId("filter").value;
  for (const group of groups) {
    const kind = kindOf(group);
    group.item.hidden = wanted !== "all" && kind !== "waiting" && kind !== wanted;
  }
}

function showStatus() {
  byId("answers").hidden = groups.length === 0;
  byId("filtering").hidden = groups.length < 2;
  const done = groups.filter((group) => group.state !== "waiting");
  for (const name of ["report", "csv", "html"]) {
    byId(name).disabled = !health || done.length < groups.length;
  }
  filter();
  if (done.length < groups.length) {
    byId("status").textContent = `${done.length} of ${groups.length} judged…`;
    return;
  }
  arrange();
  const tally = new Map();
  const count = (name) => tally.set(name, (tally.get(name) ?? 0) + 1);
  for (const { state, entry } of groups) {
    if (state === "failed") count("not judged");
    else if (entry.attributed.length === 0) count("nobody");
    else entry.attributed.forEach((named) => count(named.holder));
  }
  const several = groups.length > 1;
  const parts = [...tally].map(([name, times]) => (several ? `${name} (${times})` : name));
  byId("status").textContent = `${plural(files.length, "image")}: ${parts.join(", ")}.`;
  const [first] = groups.filter((group) => group.state === "judged");
  byId("legend").textContent = first
    ? `By chance alone: that ${allKeys(first.entry.issued)} would agree so well although no ` +
      "holder had a part in the image. Each bar is a bit that was read; the short red ones " +
      "differ from the holder's key."
    : "";
}

// Asking the service.

function tooMuch(group) {
  const { limits } = health;
  const size = group.files.reduce((sum, file) => sum + file.size, 0);
  if (group.files.length > limits.images) {
    return `The service judges at most ${plural(limits.images, "image")} as one source`;
  }
  if (size > limits.upload_bytes - 1024 * (1 + group.files.length)) {
    return `The service takes at most ${Math.floor(limits.upload_bytes / 2 ** 20)} MB at a time`;
  }
  return null;
}

async function send(group) {
  const query = new URLSearchParams({ same_source: "true", fpr: byId("fpr").value });
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    for (const file of group.files) form.append("images", file, file.name);
    const answer = await fetch(`attribute?${query}`, { method: "POST", body: form });
    if (answer.status === 503 && attempt < TRIES && answer.headers.has("Retry-After")) {
      const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 5);
      await new Promise((resume) => setTimeout(resume, 1000 * seconds));
      continue;
    }
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error.message);
    return body[0];
  }
}

// A message as a sentence; a file's name at its start is left as it is.
function sentence(message, given) {
  const named = given.some((file) => message.startsWith(file.name));
  return `${named ? message[0] : message[0].toUpperCase()}${message.slice(1)}.`;
}

async function judge(group) {
  const question = {
    at: new Date().toISOString(),
    images: group.files.map((file) => file.name),
    same_source: byId("together").checked,
    fpr: Number(byId("fpr").value),
  };
  asked.push(question);
  try {
    if (!health) await start();
    if (!health) throw new Error("the service is not ready");
    const refusal = tooMuch(group);
    if (refusal) throw new Error(refusal);
    group.entry = await send(group);
    group.state = "judged";
    question.sha256 = group.entry.sha256;
    question.named = group.entry.attributed.map((named) => named.holder);
  } catch (error) {
    group.state = "failed";
    // fetch itself fails with a TypeError: no answer came, or the file cannot be read any more.
    group.error =
      error instanceof TypeError
        ? "No answer: the service cannot be reached, or the file cannot be read."
        : sentence(error.message, group.files);
    question.error = group.error;
  }
}

async function work() {
  if (running >= PARALLEL) return;
  running += 1;
  for (;;) {
    const group = groups.find((one) => one.state === "waiting" && !one.begun);
    if (!group) break;
    group.begun = true;
    await judge(group);
    if (groups.includes(group)) {
      show(group);
      showStatus();
    }
  }
  running -= 1;
}

function add(list) {
  const made = list.map((part) => ({ files: part, state: "waiting", item: element("li") }));
  groups.push(...made);
  for (const group of made) {
    show(group);
    byId("list").append(group.item);
  }
  showStatus();
  for (let worker = 0; worker < PARALLEL; worker += 1) work();
}

function remove(group) {
  const [file] = group.files;
  URL.revokeObjectURL(urls.get(file));
  urls.delete(file);
  files = files.filter((one) => one !== file);
  groups = groups.filter((one) => one !== group);
  const next = group.item.nextElementSibling ?? group.item.previousElementSibling;
  group.item.remove();
  showStatus();
  (next?.querySelector("button") ?? byId("files")).focus();
}

function again() {
  groups = [];
  byId("list").replaceChildren();
  if (files.length === 0) showStatus();
  else add(byId("together").checked ? [files] : files.map((file) => [file]));
}

function take(given) {
  const fresh = [...given];
  if (fresh.length === 0) return;
  for (const file of fresh) urls.set(file, URL.createObjectURL(file));
  files = [...files, ...fresh];
  if (byId("together").checked) again();
  else add(fresh.map((file) => [file]));
}

function clear() {
  for (const url of urls.values()) URL.revokeObjectURL(url);
  [files, groups, urls] = [[], [], new Map()];
  byId("list").replaceChildren();
  showStatus();
  byId("files").focus();
}

// Everything that can happen.

async function start() {
  try {
    const answer = await fetch("health");
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error.message);
    health = body;
    const { limits, registry, release, version } = health;
    const short = (digest) => digest.slice(0, 12);
    byId("allowed").textContent =
      `PNG, JPEG or WebP, up to ${Math.floor(limits.upload_bytes / 2 ** 20)} MB and ` +
      `${Math.floor(limits.pixels / 1e6)} megapixels`;
    byId("state").className = "";
    byId("state").textContent =
      `Release ${short(release.digest)}, ${release.n_bits}-bit keys; registry with ` +
      `${plural(registry.issued, "issued key")}` +
      `${registry.head ? `, state ${short(registry.head)}` : ""}; scalefp ${version}.`;
  } catch (error) {
    byId("state").textContent = `The service is not ready: ${error.message}.`;
    byId("state").className = "failed";
  }
}

byId("ask").addEventListener("submit", (event) => event.preventDefault());
byId("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
byId("together").addEventListener("change", again);
byId("fpr").addEventListener("change", again);
byId("filter").addEventListener("change", filter);
for (const [name, write, suffix, type] of [
  ["report", asJson, "json", "application/json"],
  ["csv", asCsv, "csv", "text/csv"],
  ["html", asPage, "html", "text/html"],
]) {
  byId(name).addEventListener("click", () => {
    const together = byId("together").checked;
    download(write({ health, groups, asked, together }), suffix, type);
  });
}
byId("clear").addEventListener("click", clear);
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files);
});
start();
