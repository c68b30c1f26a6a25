// The table as shown, as text. Same rules as reports/grid.py and reports/formats.py.

const LATEX = {
  "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
  "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "<": "\\textless{}", ">": "\\textgreater{}",
  "↑": "$\\uparrow$", "ρ": "$\\rho$", "−": "$-$", "×": "$\\times$",
};
const latexText = (text) => visible(text).split(/\^([A-Za-z]+)/).map((part, i) =>
  (i % 2 ? `\\textsuperscript{${part}}` : part.replace(/[\\&%$#_{}~^±<>↑ρ−×]/g, (one) => LATEX[one]))).join("");
const markdownText = (text) => visible(text).replaceAll("|", "\\|").replaceAll("\n", " ");

const reportedText = (cell, view) => {
  const beside = besideOf(cell, view);
  if (!beside?.printed) return "";
  const own = beside.own === null ? "" : `${fixed(beside.own)} in the paper's units, `;
  return ` [${own}reported ${beside.printed}, ${signed(beside.gain)}]`;
};

/** Texts of the body: `mark(text, rank)` for a cell, `escape` for all else. */
const body = (table, mark, escape) => table.rows.map((row) => [
  ...rowLabels(table, row).map(escape),
  ...table.columns.map(({ column }) => {
    const cell = GRID[row].get(column);
    if (!cell) return "-";
    const reported = table.reported ? escape(reportedText(cell, table.view)) : "";
    return mark(escape(cell.text), table.ranks.get(cell.index)) + reported;
  }),
]);

const rowKeys = (table) => (table.variants ? ["encoder", "variant"] : ["encoder"]);
const rowLabels = (table, row) => (table.variants ? [ROWS[row].label, ROWS[row].variant || "-"] : [ROWS[row].label]);

function asMarkdown(table) {
  const heads = [...rowKeys(table), ...table.columns.map(({ heads }) => heads.filter(Boolean).join(" / "))];
  const marks = [(text) => `**${text}**`, (text) => `<u>${text}</u>`, (text) => text];
  const lines = [heads.map(markdownText), ...body(table, (text, rank) => marks[rank](text), markdownText)];
  const labels = rowKeys(table).length;
  const widths = heads.map((_, i) => largest(lines.map((line) => [...line[i]].length)));
  const pad = (text, i) => {
    const gap = " ".repeat(widths[i] - [...text].length);
    return i < labels ? text + gap : gap + text;
  };
  const rule = widths.map((width, i) => (i < labels ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  const [head, ...rest] = lines.map((line) => line.map(pad));
  const grid = [head, rule, ...rest].map((line) => `| ${line.join(" | ")} |`).join("\n");
  return `${grid}\n\n${table.notes.map((note) => `- ${markdownText(note)}`).join("\n")}`;
}

function asLatex(table) {
  const keys = rowKeys(table), levels = table.columns[0]?.heads.length ?? 0;
  const lines = [`\\begin{tabular}{${"l".repeat(keys.length)}${"r".repeat(table.columns.length)}}`, "\\toprule"];
  for (let level = 0; level < levels; level++) {
    const last = level === levels - 1;
    const spans = last ? table.columns.map(({ heads }) => [heads[level], 1]) : runs(table.columns, level);
    const texts = spans.map(([text, count]) =>
      (count === 1 ? latexText(text) : `\\multicolumn{${count}}{c}{${latexText(text)}}`));
    lines.push(`${[...keys.map((key) => (last ? latexText(key) : "")), ...texts].join(" & ")} \\\\`);
    const rules = cmidrules(spans, keys.length + 1);
    if (rules) lines.push(rules);
  }
  const marks = [(text) => `\\textbf{${text}}`, (text) => `\\underline{${text}}`, (text) => text];
  const rows = body(table, (text, rank) => marks[rank](text), latexText).map((line) => `${line.join(" & ")} \\\\`);
  lines.push("\\midrule", ...rows, "\\bottomrule", "\\end{tabular}");
  return [...lines, ...table.notes.map((note) => `\\par\\footnotesize ${latexText(note)}`)].join("\n");
}

function cmidrules(spans, first) {
  const rules = [];
  for (const [text, count] of spans) {
    if (count > 1 && text) rules.push(`\\cmidrule(lr){${first}-${first + count - 1}}`);
    first += count;
  }
  return rules.join(" ");
}

/** Runs of neighbours whose heads are equal down to `level`: [head, length]. */
function runs(columns, level) {
  const found = [];
  columns.forEach(({ heads }, i) => {
    const before = columns[i - 1]?.heads;
    if (before && heads.slice(0, level + 1).every((head, l) => head === before[l])) found.at(-1)[1] += 1;
    else found.push([heads[level], 1]);
  });
  return found;
}

/** Plain numbers in full precision. Spreadsheets run cells that begin like a formula, so these get an apostrophe. */
function asCsv(table) {
  const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const defuse = (text) => quote(/^[=+@\-\t\r]/.test(text) ? `'${text}` : text);
  const heads = table.columns.flatMap(({ heads }) =>
    ["mean", "std", "seeds", ...(table.reported ? ["reported"] : [])].map((part) => `${heads.filter(Boolean).join(" / ")} ${part}`));
  const lines = table.rows.map((row) => [
    ...rowLabels(table, row).map(defuse),
    ...table.columns.flatMap(({ column }) => {
      const cell = GRID[row].get(column);
      const reported = table.reported ? [(cell && besideOf(cell, table.view)?.printed) ?? ""] : [];
      return cell ? [cell.mean, cell.spread ?? "", cell.seeds.length, ...reported] : ["", "", 0, ...reported];
    }),
  ]);
  return [[...rowKeys(table), ...heads].map(defuse), ...lines].map((line) => line.join(",")).join("\n") + "\n";
}
