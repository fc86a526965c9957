// The first view: summary, notes, tables, figures, and what was run.

/** The view of results. */
function resultsView(data) {
  const section = (title, ...children) => el("section", {}, el("h2", {}, title), children);
  const lines = (texts) => el("ul", {}, texts.map((text) => el("li", {}, text)));
  return [
    data.summary?.length && el("section", { class: "summary" }, data.summary.map((text) => el("p", {}, text))),
    data.notes?.length && el("section", { class: "notes" }, el("h2", {}, "Notes"), lines(data.notes)),
    data.tables?.length && section("Tables", data.tables.map(tableOf)),
    data.figures?.length && section("Figures", el("div", { class: "figures" }, data.figures.map(figureOf))),
    data.runs?.length && section("Runs", data.runs.map(runOf)),
  ].filter(Boolean);
}

function tableOf(table) {
  const cell = ({ text, best, head }) =>
    el(head ? "th" : "td", { scope: head && "row" }, best ? el("strong", {}, text) : text);
  const header = (text, i) => el("th", { scope: "col", class: table.rows[0]?.[i]?.head && "head" }, text);
  return el("figure", { class: "table" },
    el("figcaption", {}, el("h3", {}, table.title), table.caption && el("p", {}, table.caption)),
    el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": table.title },
      el("table", {},
        el("thead", {}, el("tr", {}, table.header.map(header))),
        el("tbody", {}, table.rows.map((row) => el("tr", {}, row.map(cell)))))),
    filesOf(table.files));
}

// A figure is shown as an image: its ids cannot clash with another's, and nothing in it can run.
function figureOf(figure) {
  return el("figure", { class: "figure" },
    el("figcaption", {}, el("h3", {}, figure.title), figure.caption && el("p", {}, figure.caption)),
    el("img", { src: `data:image/svg+xml,${encodeURIComponent(figure.svg.toWellFormed())}`, alt: figure.title }),
    filesOf(figure.files));
}

/** Links to files beside the page; never to another place. */
function filesOf(files) {
  if (!files?.length) return null;
  const address = (name) => "./" + name.toWellFormed().split("/").map(encodeURIComponent).join("/");
  const link = (name) => el("a", { href: address(name) }, name);
  return el("p", { class: "files" }, "Files: ", files.flatMap((name, i) => [i > 0 && ", ", link(name)]));
}

function runOf(run) {
  const keys = Object.keys(run.metrics ?? {});
  const steps = Math.max(...keys.map((key) => run.metrics[key].x.at(-1) ?? 0));
  const facts = [run.kind, keys.length && `to step ${count(steps)}`, keys.length && `${count(keys.length)} metrics`];
  return el("details", { class: "run" },
    el("summary", {}, el("b", {}, run.name), " ", el("span", { class: "muted" }, facts.filter(Boolean).join(" · "))),
    el("pre", {}, run.recipe ?? ""));
}
