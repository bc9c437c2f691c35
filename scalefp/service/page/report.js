// The verdicts as files: JSON for programs, CSV for a spreadsheet, a page for paper. None holds a key.

import { element, plural } from "./verdict.js";

function gather({ health, groups, asked, together }) {
  const results = groups.map((group) => {
    if (group.state === "failed") {
      return { images: group.files.map((file) => file.name), error: group.error };
    }
    const { read, attributed, ...rest } = group.entry;
    return { ...rest, attributed: attributed.map(({ key, ...named }) => named) };
  });
  return {
    report: "scalefp attribution",
    version: health.version,
    made_at: new Date().toISOString(),
    release: health.release,
    same_source: together,
    results,
    asked,
  };
}

export function asJson(page) {
  return JSON.stringify(gather(page), null, 1);
}

// A row for each name, or one that says nobody, or why there is no verdict.
function rows(results) {
  return results.flatMap((result) => {
    const about = { images: result.images.join(" | "), sha256: (result.sha256 ?? []).join(" | ") };
    if (result.error) return [{ ...about, verdict: "not judged", error: result.error }];
    const { attributed, fpr, form, issued, model_digest, registry_head } = result;
    const tested = { fpr, form, issued, model_digest, registry_head };
    if (attributed.length === 0) return [{ ...about, verdict: "nobody", ...tested }];
    return attributed.map((named) => ({ ...about, verdict: "named", ...named, ...tested }));
  });
}

const COLUMNS = [
  ..."images sha256 verdict holder p_value odds matches effective_bits margin revoked".split(" "),
  ..."fpr form issued model_digest registry_head error".split(" "),
];

// Quoted; what a spreadsheet would run as a formula begins with an apostrophe.
function cell(value) {
  const text = String(value ?? "");
  const harmless = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return `"${harmless.replaceAll('"', '""')}"`;
}

export function asCsv(page) {
  const lines = rows(gather(page).results).map((row) => COLUMNS.map((name) => cell(row[name])));
  return [COLUMNS.map(cell), ...lines].map((line) => `${line.join(",")}\r\n`).join("");
}

const STYLE = `body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid #bbb; }
td.digest { font: 11px/1.4 ui-monospace, monospace; max-width: 16rem; }
tr { break-inside: avoid; }`;

function table(names, lines) {
  const head = element("tr", {}, ...names.map((name) => element("th", {}, name)));
  const body = lines.map((line) =>
    element(
      "tr",
      {},
      ...line.map((text, index) =>
        element("td", names[index] === "SHA-256" ? { class: "digest" } : {}, String(text ?? "")),
      ),
    ),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

export function asPage(page) {
  const { version, made_at, release, results, asked } = gather(page);
  const made = document.implementation.createHTMLDocument("Attribution report");
  made.documentElement.lang = "en";
  const verdicts = rows(results).map((row) => [
    row.images,
    row.holder ?? row.verdict,
    row.odds ? `${row.odds} by chance` : row.error,
    row.matches ? `${row.matches} of ${release.n_bits}` : "",
    row.sha256,
  ]);
  const questions = asked.map((one, index) => [
    index + 1,
    one.at,
    one.images.join(", "),
    one.same_source ? "as one source" : "by itself",
    one.fpr,
    one.error ?? (one.named.join(", ") || "nobody"),
  ]);
  const [tested] = results.filter((result) => result.issued !== undefined);
  made.head.append(
    element("meta", { charset: "utf-8" }),
    element("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
  );
  made.body.append(
    element("h1", {}, "Attribution report"),
    element("p", {}, `Made ${made_at} by scalefp ${version}. Release ${release.digest}.`),
    element(
      "p",
      {},
      tested
        ? `Compared with ${plural(tested.issued, "issued key")}, registry state ` +
            `${tested.registry_head}. The odds are at most the probability that any of these keys ` +
            "would agree so well if nobody who holds one had a part in the image. A name says " +
            "that the fingerprint of a holder's copy is in the image, not that the holder made " +
            "it: fingerprints can be laid on other pictures (docs/secrets.md)."
        : "No image was judged.",
    ),
    table(["Image", "Verdict", "Odds", "Bits that agree", "SHA-256"], verdicts),
    element("h2", {}, "Every question, in order"),
    element(
      "p",
      {},
      "Verdicts on several images as one source are exact only if the images were chosen without " +
        "looking at verdicts.",
    ),
    table(["", "Time", "Images", "Judged", "Accepted error", "Answer"], questions),
  );
  // The style as text: this page's policy would refuse the element, even in a document to be saved.
  const whole = made.documentElement.outerHTML.replace("</head>", `<style>${STYLE}</style></head>`);
  return `<!doctype html>\n${whole}\n`;
}

export function download(text, suffix, type) {
  const when = new Date().toISOString().slice(0, 19).replaceAll(":", "");
  const link = element("a", {
    href: URL.createObjectURL(new Blob([text], { type })),
    download: `scalefp-report-${when}.${suffix}`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
