// What one value was measured with.

const number = (value, digits = 3) =>
  (value === null || value === undefined ? UNKNOWN
    : value.toLocaleString("en", { maximumFractionDigits: digits, useGrouping: Math.abs(value) >= 10000 }));

/** A value that seeds share, or each seed's own. */
function shared(seeds, pick) {
  const texts = seeds.map((seed) => pick(seed));
  if (texts.every((text) => text === texts[0])) return texts[0];
  return el("ul", null, seeds.map((seed, i) => el("li", null, `seed ${seed.seed}: ${texts[i]}`)));
}

/** Nested settings as lines: dotted name, value. */
function flat(value, name = "") {
  const nested = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length;
  if (!nested) return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key));
}

const settingsTable = (config) => {
  const lines = flat(config).filter(([name]) => name);
  return lines.length ? plainTable(["setting", "value"], lines, { class: "plain settings" }) : el("p", null, "None.");
};
const sharedTable = (seeds, field) => {
  const texts = new Set(seeds.map((seed) => JSON.stringify(seed[field])));
  return [...texts].map((text) => settingsTable(JSON.parse(text)));
};

const memory = (peak) => Object.entries(peak ?? {}).map(([where, bytes]) =>
  `${where} ${typeof bytes === "number" ? `${(bytes / 2 ** 20).toFixed(0)} MiB` : bytes}`).join(", ") || UNKNOWN;

function drawProvenance(cell) {
  const seeds = seedsOf(cell), column = COLUMNS[cell.column];
  const one = (field) => shared(seeds, (seed) => known(seed[field]));
  const count = (field) => shared(seeds, (seed) => number(seed[field]));
  const setup = [
    ["probe", one("probe")], ["dataset", one("dataset")], ["split", one("split")], ["protocol", one("protocol")],
    ["protocol version", one("protocol_version")], ["dataset fingerprint", code(one("dataset_fingerprint"))],
  ];
  const tower = [
    ["reference", one("reference")], ["weights", one("weights")], ["trained", shared(seeds, (s) => (s.trained ? "yes" : "no"))],
    ["input size", shared(seeds, (s) => (s.size === null ? UNKNOWN : `${s.size} px`))], ["layer", one("layer")],
    ["norm", shared(seeds, (s) => known(s.encoder_spec.norm))], ["tokens", count("tokens")], ["GFLOPs", count("gflops")],
    ["fingerprint", code(one("encoder_fingerprint"))],
  ];
  const run = [
    ["device", one("device")], ["images per second", count("images_per_s")],
    ["peak memory", shared(seeds, (s) => memory(s.peak_memory))], ["commit", code(one("commit"))],
  ];
  return [
    el("header", null,
      el("div", null,
        el("p", { class: "muted" }, columnName(cell.column)),
        el("h2", { id: "provenance-title" }, el("a", { href: encoderLink(cell.row) }, rowName(cell.row)))),
      el("form", { method: "dialog" }, el("button", { class: "quiet", "aria-label": "Close", autofocus: true }, "✕"))),
    el("p", { class: "big" }, cell.text, el("small", null, ` ${column.unit}`),
      el("small", { class: "muted" }, ` ${seeds.length} ${seeds.length === 1 ? "seed" : "seeds"}, ${column.better ? "higher" : "lower"} is better`)),
    besidesOf(cell).map(besideNote),
    el("h3", null, "Seeds"),
    el("div", { class: "scroll" }, plainTable(["seed", column.unit, "standard error", "n", "seconds", "finished", "file"],
      seeds.map((s) => [s.seed, number(s.value, 4), s.stderr === null ? "–" : number(s.stderr, 4), s.n.toLocaleString("en"),
        number(s.seconds, 1), el("time", null, s.finished.replace("T", " ").replace("+00:00", " UTC")), el("code", { class: "key" }, `${s.key}.json`)]))),
    el("h3", null, "Measurement"), facts(setup),
    el("h3", null, "Encoder"), facts(tower),
    el("h3", null, "Configuration"), sharedTable(seeds, "config"),
    el("details", null, el("summary", null, "Settings that change how it runs, not what it computes"), sharedTable(seeds, "run_only")),
    el("h3", null, "Run"), facts(run),
    el("details", null, el("summary", null, "Package versions"), sharedTable(seeds, "versions")),
  ].flat();
}

const code = (value) => (typeof value === "string" && value !== UNKNOWN ? el("code", { class: "key" }, value) : value);

function besideNote({ table, row, column, printed, gain, own, differs }) {
  const units = own === null ? "" : ` (${fixed(own)} in the paper’s units)`;
  return el("div", { class: "beside" },
    printed === null ? el("p", null, `Table ${table}, ${column}: the paper has no value for this encoder.`)
      : el("p", null, el("span", { class: "tag" }, "reported"),
        ` Table ${table}, ${row}, ${column}: ${printed}; measured${units} minus reported `, el("b", null, signed(gain))),
    differs.length ? [el("p", null, "† Not the paper’s protocol:"), el("ul", null, differs.map((text) => el("li", null, text)))]
      : el("p", { class: "muted" }, "Nothing that is known of the paper’s protocol differs."));
}

function openProvenance(cell) {
  const dialog = byId("provenance");
  dialog.replaceChildren(...drawProvenance(cell));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
