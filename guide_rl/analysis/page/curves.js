// The view of curves: every metric of every run, in small charts grouped by the part of the key before "/".

/** The view, for runs that have metrics. */
function curvesView(data) {
  const runs = data.runs.map((run, n) => ({ ...run, style: lineStyle(n), shown: true }))
    .filter((run) => Object.keys(run.metrics ?? {}).length);
  if (!runs.length) return [el("p", { class: "empty" }, "No run here has metrics.")];
  const state = { window: 10, words: "" };
  const cards = keysOf(runs).map((key) => chartCard(key, runs, state, helpFor(key, data.metric_help ?? {})));
  const groups = grouped(cards).map(([name, members]) => {
    const node = el("section", { class: "charts", "aria-label": name }, el("h2", {}, name), el("div", { class: "grid-of-charts" },
      members.map((card) => card.node)));
    return { node, members };
  });
  const none = el("p", { class: "empty", hidden: true }, "No metric has these words in its name.");
  const redraw = () => cards.forEach((card) => card.changed());
  const filter = () => {
    for (const card of cards) card.node.hidden = !card.key.toLowerCase().includes(state.words);
    for (const { node, members } of groups) node.hidden = members.every((card) => card.node.hidden);
    none.hidden = groups.some(({ node }) => !node.hidden);
  };
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Runs: press to hide or show" }, runs.map((run) => {
    const button = el("button", { "aria-pressed": "true", title: run.name, onclick: () => {
      run.shown = !run.shown;
      button.setAttribute("aria-pressed", String(run.shown));
      redraw();
    } }, lineSample(run.style), el("span", {}, run.name));
    return button;
  }));
  const window = () => (state.window > 1 ? `mean of ${state.window} steps` : "off");
  const said = el("output", {}, window());
  const tools = el("div", { class: "tools" }, legend,
    el("label", { class: "smoothing" }, "Smoothing", el("input", { type: "range", min: 1, max: 100, value: state.window, id: "smoothing",
      oninput: (event) => {
        state.window = Number(event.target.value);
        said.textContent = window();
        redraw();
      } }), said),
    el("input", { type: "search", id: "metric-filter", placeholder: "Filter metrics", "aria-label": "Filter metrics by name",
      oninput: (event) => {
        state.words = event.target.value.trim().toLowerCase();
        filter();
      } }));
  return [tools, ...groups.map(({ node }) => node), none];
}

function keysOf(runs) {
  return [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort();
}

/** Pairs of a group's name and its cards; metrics that would be alone in their group come last, together. */
function grouped(cards) {
  const groups = new Map();
  for (const card of cards) {
    const name = card.key.split("/")[0];
    groups.set(name, [...(groups.get(name) ?? []), card]);
  }
  const several = [...groups].filter(([, members]) => members.length > 1);
  const alone = [...groups.values()].filter((members) => members.length === 1).flat();
  return alone.length ? [...several, ["other", alone]] : several;
}

/** What a metric means: its own line, that of the longest key it extends, or that of a pattern such as `grades/<verdict>`. */
function helpFor(key, help) {
  const extended = Object.keys(help).filter((name) => key === name || key.startsWith(`${name}/`));
  const [longest] = extended.sort((a, b) => b.length - a.length);
  const pattern = (name) => name.split(/<[^>]*>|(?<=@)k/).map((text) => text.replace(/[^\w/]/g, "\\$&")).join("[^/]+");
  const name = longest ?? Object.keys(help).find((other) => new RegExp(`^${pattern(other)}(/.*)?$`).test(key));
  return name === undefined ? "" : help[name];
}

/** One chart with its name, help and reading of values; it is drawn when it comes into view. */
function chartCard(key, runs, state, help) {
  const reading = el("div", { class: "reading", hidden: true, "aria-live": "polite" });
  const plot = el("div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${key}: left and right arrows read values` });
  const node = el("figure", { class: "chart" }, el("figcaption", {}, el("h3", { title: key }, key), el("p", { title: help }, help || " ")), plot, reading);
  let chart = null, step = null, seen = false, stale = true;
  const draw = () => {
    if (!seen || !stale) return;
    stale = false;
    const shown = runs.filter((run) => run.shown && run.metrics[key]);
    const lines = shown.map((run) => ({ name: run.name, style: run.style, ...run.metrics[key] }));
    chart = lineChart(lines, state.window, `${key} over steps: ${shown.map((run) => run.name).join(", ")}`);
    plot.replaceChildren(chart.picture);
    read(null);
  };
  const read = (at) => {
    step = at;
    const found = chart.read(at);
    reading.hidden = !found;
    if (!found) return;
    reading.replaceChildren(el("b", {}, `step ${count(at)}`), ...found.map((line) =>
      el("span", {}, lineSample(line.style), el("span", { class: "name" }, line.name), el("span", { class: "value" }, number(line.value)))));
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    if (chart?.steps.length) read(chart.stepAt((event.clientX - box.left) / box.width));
  });
  plot.addEventListener("pointerleave", () => chart && read(null));
  plot.addEventListener("blur", () => chart && read(null));
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (!(event.key in moves) || !chart?.steps.length) return;
    event.preventDefault();
    const place = step == null ? -1 : chart.steps.indexOf(step);
    read(chart.steps[Math.max(0, Math.min(chart.steps.length - 1, place + moves[event.key]))]);
  });
  new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    draw();
  }, { rootMargin: "300px" }).observe(node);
  return { key, node, changed: () => {
    stale = true;
    draw();
  } };
}
