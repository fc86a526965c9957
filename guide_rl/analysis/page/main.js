// Start: unpack, show, keep the link current, listen to keys.

const KEYS = [
  ["1 2 3", "results, curves, rollouts"],
  ["j k or ↓ ↑", "next and previous problem"],
  ["[ ]", "previous and next step of the problem"],
  ["/", "search"],
  ["Esc", "leave the search"],
  ["← →", "in a chart, the history or shaded tokens: read the next value"],
  ["?", "this help"],
];

/** Show that something went wrong, in words. */
function fault(error) {
  const text = error instanceof Error ? error.message : String(error);
  document.getElementById("progress").hidden = true;
  const said = el("p", { class: "fault", role: "alert" }, `This page could not be shown whole: ${text}`);
  document.getElementById("views").before(said);
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack its data (no DecompressionStream). " +
      "Chrome or Edge 111, Firefox 119, Safari 16.4 or newer can.");
  }
  const data = await unpack("main");
  document.getElementById("made").textContent = data.made ? `made ${visible(data.made)}` : "";
  const rollouts = new RolloutsView(data, () => page.keep());
  const page = new Page(data, rollouts);
  document.getElementById("progress").hidden = true;
  page.restore();
  if (data.reload_s) reloadWhenIdle(data.reload_s);
  await rollouts.readTexts();
}

/** While a report is watched: load it anew, but never under a reader's hands; the link keeps the place. */
function reloadWhenIdle(seconds) {
  let touched = 0;
  for (const kind of ["keydown", "pointerdown", "wheel", "scroll"]) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true, capture: true });
  }
  setInterval(() => Date.now() - touched > 1000 * seconds && location.reload(), 1000 * seconds);
}

class Page {
  constructor(data, rollouts) {
    this.rollouts = rollouts;
    this.views = [
      this.newView("results", "Results", () => resultsView(data)),
      this.newView("curves", "Curves", () => curvesView(data)),
      this.newView("rollouts", "Rollouts", () => [rollouts.node]),
    ];
    document.getElementById("tabs").append(...this.views.map(({ tab }) => tab));
    document.getElementById("views").append(...this.views.map(({ panel }) => panel));
    this.help = document.getElementById("help");
    this.help.append(
      el("h2", {}, "Keys"), terms(KEYS),
      el("h2", {}, "Filters"), terms(FILTERS.slice(1).map(([, name, text]) => [name, text])),
      el("form", { method: "dialog" }, el("button", { autofocus: true }, "Close")));
    document.getElementById("help-button").addEventListener("click", () => this.help.showModal());
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => location.hash !== this.kept && this.restore());
  }

  /** A tab and its panel; `make()` gives what is in the panel when it is first opened. */
  newView(name, label, make) {
    const [tab, panel] = [`tab-${name}`, `view-${name}`];
    return {
      name, make,
      tab: el("button", { role: "tab", id: tab, "aria-controls": panel, onclick: () => this.open(name) }, label),
      panel: el("div", { role: "tabpanel", id: panel, class: `view ${name}`, "aria-labelledby": tab, hidden: true }),
    };
  }

  open(name) {
    this.view = name;
    for (const view of this.views) {
      const here = view.name === name;
      view.tab.setAttribute("aria-selected", String(here));
      view.tab.tabIndex = here ? 0 : -1;
      view.panel.hidden = !here;
      if (here && !view.panel.firstChild) view.panel.append(...view.make());
    }
    document.body.dataset.view = name;
    if (name === "rollouts") this.rollouts.list.choose(this.rollouts.problem);
    this.keep();
  }

  /** Write what is shown into the address, so that a link can be shared. */
  keep() {
    if (!this.view) return;
    const kept = new URLSearchParams({ view: this.view });
    for (const [name, value] of Object.entries(this.rollouts.link())) if (value) kept.set(name, value);
    this.kept = `#${kept}`;
    clearTimeout(this.writing); // a browser refuses very many changes in a short time
    this.writing = setTimeout(() => history.replaceState(null, "", this.kept), 150);
  }

  restore() {
    const kept = new URLSearchParams(location.hash.slice(1));
    this.view = undefined;
    this.rollouts.restore(kept);
    const known = this.views.some(({ name }) => name === kept.get("view"));
    this.open(known ? kept.get("view") : "results");
  }

  key(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    if (target.matches("input[type=search]")) return void (key === "Escape" && target.blur());
    if (target.matches("input, select, textarea")) return;
    const act = this.action(key, target);
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** What a key does here, if anything. */
  action(key, target) {
    const { rollouts } = this;
    const places = this.views.map(({ name }) => name);
    if (key === "?") return () => this.help.showModal();
    if (places[key - 1]) return () => this.open(places[key - 1]);
    if (key === "/") return () => this.search();
    if (target.role === "tab" && (key === "ArrowLeft" || key === "ArrowRight")) {
      const next = this.views.at((places.indexOf(this.view) + (key === "ArrowLeft" ? -1 : 1)) % places.length);
      return () => (this.open(next.name), next.tab.focus());
    }
    if (this.view !== "rollouts") return null;
    const moves = { j: 1, k: -1 };
    if (!rollouts.detail.contains(target)) Object.assign(moves, { ArrowDown: 1, ArrowUp: -1 });
    if (Object.hasOwn(moves, key)) return () => rollouts.step(moves[key]);
    if (key === "[" || key === "]") return () => rollouts.turn(key === "[" ? -1 : 1);
    return null;
  }

  /** Go to the search of the view; the results have none, so theirs is that of the rollouts. */
  search() {
    if (this.view === "results") this.open("rollouts");
    document.getElementById(this.view === "curves" ? "metric-filter" : "search")?.select();
  }
}

function terms(pairs) {
  return el("dl", { class: "terms" }, pairs.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
}

addEventListener("error", (event) => fault(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => fault(event.reason));
start();
