// The page's data (rice/curate/montage/page.py says its form), numbers as texts, the histogram.

const DATA = JSON.parse(byId("data").textContent);

const CLUSTERS = DATA.clusters.map(([number, name, size, distance, [file, width, height], regions]) => ({
  number, name, size, distance, file, width, height,
  regions: regions.map(([left, top, picture, x1, y1, x2, y2, squared, score, near, damaged]) =>
    ({ left, top, picture, box: [x1, y1, x2, y2], squared, score, near, damaged })),
}));

const count = (number) => number.toLocaleString("en");
const digits = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
const plural = DATA.kind === "class" ? "classes" : "clusters";
const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
const TOTALS = Object.fromEntries(DATA.totals);

function drawHistogram() {
  byId("histogram").hidden = !DATA.histogram.length;
  const most = Math.max(...DATA.histogram.map(([, , clusters]) => clusters));
  byId("histogram-title").textContent = `Regions in each of ${many(TOTALS.clusters - TOTALS["empty clusters"], DATA.kind, plural)}`;
  byId("bars").append(...DATA.histogram.map(([least, largest, clusters]) => {
    const bar = el("i", null);
    bar.style.height = `${clusters ? Math.max((100 * clusters) / most, 1) : 0}%`;
    const range = least === largest ? count(least) : `${count(least)} to ${count(largest)}`;
    return el("div", { title: `${many(clusters, DATA.kind, plural)} of ${range} regions` }, el("small", null, clusters ? clusters.toLocaleString("en", { notation: "compact" }) : ""), bar);
  }));
  byId("histogram").append(el("p", { class: "muted ends" },
    el("span", null, count(DATA.histogram[0][0])), el("span", null, "regions, bins that grow"), el("span", null, count(DATA.histogram.at(-1)[1]))));
}
