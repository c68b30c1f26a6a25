// Order, search, and what the page says of itself.

const AT_ONCE = 200; // cards that are laid out at a time
const ORDERS = {
  "largest first": (a, b) => b.size - a.size,
  "smallest first": (a, b) => a.size - b.size,
  ...(DATA.measured ? {
    "tightest first": (a, b) => (a.distance ?? Infinity) - (b.distance ?? Infinity),
    "loosest first": (a, b) => (b.distance ?? -Infinity) - (a.distance ?? -Infinity),
  } : {}),
  "by number": () => 0,
};
const filters = byId("filters");
let found = [];

/** Clusters that fit the search, in the order that was asked for; a tie is broken by number. */
function chosen() {
  const text = filters.find.value.trim().toLowerCase();
  const number = /^\d+$/.test(text) ? Number(text) : null;
  const fits = (one) => !text || (number === null ? one.name.toLowerCase().includes(text) : one.number === number);
  return CLUSTERS.filter(fits).sort((a, b) => ORDERS[filters.order.value](a, b) || a.number - b.number);
}

function draw() {
  found = chosen();
  byId("cards").replaceChildren();
  more();
  byId("said").textContent = found.length === CLUSTERS.length ? "" : found.length ? `${count(found.length)} of ${many(CLUSTERS.length, DATA.kind, plural)}`
    : `Nothing here fits “${visible(filters.find.value.trim())}”${CLUSTERS.length < filled() ? `; the page shows ${count(CLUSTERS.length)} of ${count(filled())} ${plural}` : ""}.`;
}

function more() {
  const there = byId("cards").childElementCount;
  byId("cards").append(...found.slice(there, there + AT_ONCE).map(card));
  byId("more").hidden = byId("cards").childElementCount >= found.length;
}

const filled = () => TOTALS.clusters - TOTALS["empty clusters"];

function sayHow() {
  const { regions, most_clusters, seed } = DATA.settings, half = Math.floor(regions / 2);
  const which = CLUSTERS.length < filled()
    ? `Of ${count(filled())} ${plural} with regions, ${count(CLUSTERS.length)} are shown: the ${count(most_clusters - Math.floor(most_clusters / 2))} largest and ${count(Math.floor(most_clusters / 2))} drawn from the others. ` : "";
  const what = DATA.measured
    ? `Of each ${DATA.kind}: up to ${half} regions nearest to its centre, which flatter it, and below them up to ${regions - half} drawn from all others, which do not.`
    : `Of each ${DATA.kind}: up to ${regions} regions drawn from all. The shards hold no distances.`;
  byId("how").textContent = `${which}${what} Seed ${seed}. A sheet opens with pictures, boxes and scores.`;
}

function sayTotals() {
  const dropped = DATA.dropped.map(([reason, number]) => el("li", null, `${count(number)} ${reason}`));
  const damaged = new Set(CLUSTERS.flatMap((one) => one.regions.filter((region) => region.damaged).map((region) => region.picture)));
  byId("totals").replaceChildren(...DATA.totals.flatMap(([name, number]) => [el("dt", null, name.replace("clusters", plural)), el("dd", null, count(number))]),
    ...(dropped.length ? [el("dt", null, "left out before"), el("dd", null, el("ul", null, dropped))] : []),
    ...(damaged.size ? [el("dt", null, "damaged"), el("dd", null, `${many(damaged.size, "picture")} of those that were opened: ${[...damaged].slice(0, 5).join(", ")}`)] : []));
  byId("summary").textContent = `${many(TOTALS.pictures, "picture")} · ${many(TOTALS.regions, "region")} · ${many(filled(), DATA.kind, plural)}`;
}

function drawTexts() {
  byId("texts").hidden = !DATA.texts.length;
  byId("texts-how").textContent = `${many(DATA.texts.length, "region")} of ${count(TOTALS["of text"])}, drawn by the seed; with the confidence.`;
  byId("text-list").replaceChildren(...DATA.texts.map(([file, width, height, text, score, picture]) =>
    el("figure", { title: picture }, file ? el("img", { src: source(file), width, height, loading: "lazy", decoding: "async", alt: "" }) : el("span", { class: "tag" }, "damaged"),
      el("figcaption", null, el("bdi", null, text || "(the shards hold tokens alone)"), el("small", { class: "muted" }, digits(score))))));
}

function start() {
  filters.order.append(...Object.keys(ORDERS).map((name) => el("option", { value: name }, name)));
  byId("find-name").textContent = DATA.kind === "class" ? "Class name or number" : "Cluster number";
  filters.addEventListener("input", draw);
  filters.addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", more);
  const dialog = byId("viewer");
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  sayTotals();
  drawHistogram();
  sayHow();
  draw();
  drawTexts();
  document.body.dataset.ready = "yes";
}

start();
