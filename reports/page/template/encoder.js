// The list of encoders, and a page for each.

/** Settings of every result behind a row. */
function settingsOf(row) {
  const numbers = new Set([...GRID[row].values()].flatMap((cell) => cell.seeds.map(([number]) => number)));
  return [...numbers].map(resultOf);
}

/** Distinct values of a field, as texts. */
const distinct = (results, pick) => [...new Set(results.map((one) => asText(pick(one))))].sort().join("; ");

function asText(value) {
  if (value === null || value === undefined || value === "") return UNKNOWN;
  if (Array.isArray(value)) return value.map(asText).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name} ${asText(inner)}`).join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : value;
}

function drawEncoders() {
  const heads = ["encoder", "weights", "patch", "width", "depth", "native size", "licence", "source", "values"];
  byId("encoder-list").replaceChildren(plainTable(heads, ROWS.map((_, row) => {
    const results = settingsOf(row), spec = (field) => distinct(results, (one) => one.encoder_spec[field]);
    return [el("a", { href: encoderLink(row) }, rowTitle(row)), ROWS[row].trained ? "trained" : el("span", { class: "tag" }, "untrained"),
      spec("patch"), spec("width"), spec("depth"), spec("native_size"), spec("licence"), spec("source"), GRID[row].size];
  })));
}

// In this order, under these names; what else a spec has follows under its own.
const SPEC = {
  name: "name", source: "source", revision: "revision", licence: "licence", paper: "paper", patch: "patch",
  width: "width", depth: "depth", mlp_width: "MLP width", native_size: "native size", size_multiple: "sizes, multiples of",
  mean: "mean", std: "standard deviation", layer: "layer", norm: "final norm", preprocessing: "preprocessing",
  prefix_tokens: "class and register tokens", gated_mlp: "gated MLP", public: "weights published", note: "note",
};

function specFacts(results) {
  const others = results.flatMap(({ encoder_spec }) => Object.keys(encoder_spec).filter((name) => encoder_spec[name] !== null));
  const names = new Set([...Object.keys(SPEC), ...others]);
  return [...names].map((field) => {
    const text = distinct(results, (one) => one.encoder_spec[field]);
    return [SPEC[field] ?? field.replaceAll("_", " "), field === "paper" ? paperLink(text) : text];
  });
}

const paperLink = (text) => (/^https:\/\/[^\s"'<>]+$/.test(text)
  ? el("a", { href: text, rel: "noopener noreferrer", target: "_blank" }, text) : text);

function drawEncoder(name) {
  const row = ROWS.findIndex((_, one) => rowName(one) === name);
  const page = byId("page-encoder");
  if (row < 0) {
    page.replaceChildren(el("h2", { id: "encoder-title" }, "No such encoder"), el("p", null, name));
    return;
  }
  const results = settingsOf(row);
  const own = (title, pick) => [title, distinct(results, pick)];
  const figures = DATA.figures.filter((figure) => figure.rows.includes(row));
  page.replaceChildren(
    el("p", { class: "muted" }, el("a", { href: "#/encoders" }, "Encoders"), " /"),
    el("h2", { id: "encoder-title" }, rowTitle(row), ROWS[row].trained ? null : el("span", { class: "tag" }, "untrained")),
    el("h3", null, "Results"),
    el("div", { class: "scroll" }, resultsTable(row)),
    ...(figures.length ? [el("h3", null, "Figures and clips"), el("div", { class: "figures" }, figures.map(drawFigure))] : []),
    el("div", { class: "two" },
      el("div", null, el("h3", null, "Specification"), facts(specFacts(results))),
      el("div", null, el("h3", null, "As measured"), facts([
        own("reference", (one) => one.reference), own("weights", (one) => one.weights),
        own("input size", (one) => one.size), own("layer", (one) => one.layer), own("tokens", (one) => one.tokens),
        own("GFLOPs", (one) => one.gflops), own("device", (one) => one.device), own("commit", (one) => one.commit),
        ["fingerprint", el("code", { class: "key" }, distinct(results, (one) => one.encoder_fingerprint))],
      ]))));
}

function resultsTable(row) {
  const heads = ["probe / dataset / metric", "mean ± sd", "among the encoders", "place", "reported by the paper"];
  const cells = [...GRID[row].values()].sort((a, b) => a.column - b.column);
  return plainTable(heads, cells.map((cell) => {
    const { unit, better } = COLUMNS[cell.column];
    const column = CELLS_OF(cell.column);
    const ahead = column.filter((other) => (better ? other.mean > cell.mean : other.mean < cell.mean)).length;
    const beside = besideOf(cell, null);
    return [el("a", { href: `#/cell/${cellId(cell)}` }, columnName(cell.column)), `${cell.text} ${unit}`,
      standing(cell, column), `${ahead + 1} of ${column.length}`,
      !beside?.printed ? "–" : el("span", { class: "reported" }, `${beside.printed} (${signed(beside.gain)})`,
        beside.differs.length ? " †" : "")];
  }), { class: "plain results" });
}

let byColumn = null;
function CELLS_OF(column) {
  byColumn ??= Map.groupBy(CELLS, (cell) => cell.column);
  return byColumn.get(column);
}
