// The view of curves: every metric of every run, in small charts grouped by the part of the key before "/".

/** The view, for runs that have metrics. */
function curvesView(data) {
  const runs = data.runs.map((run, n) => ({ ...run, style: lineStyle(n), shown: true }))
    .filter((run) => Object.keys(run.metrics ?? {}).length);
  if (!runs.length) return [el("p", { class: "empty" }, "No run here has metrics.")];
  const state = { window: 10, words: "" };
  const cards = keysOf(runs).map((key) => chartCard(key, runs, state, helpFor(key, data.metric_help ?? {})));
  const groups = grouped(cards).map(([name, members]) => {
    const node = el("section", { class: "charts", "aria-label": name }, el("h2", {}, name),
      el("div", { class: "grid-of-charts" }, members.map((card) => card.node)));
    return { node, members };
  });
  const none = el("p", { class: "empty", hidden: true }, "No metric has these words in its name.");
  const redraw = () => cards.forEach((card) => card.changed());
  const filter = () => {
    for (const card of cards) card.node.hidden = !lower(card.key).includes(state.words);
    for (const { node, members } of groups) node.hidden = members.every((card) => card.node.hidden);
    none.hidden = groups.some(({ node }) => !node.hidden);
  };
  const toggle = (run) => ({ currentTarget }) => {
    run.shown = !run.shown;
    currentTarget.setAttribute("aria-pressed", String(run.shown));
    redraw();
  };
  const button = (run) => el("button", { "aria-pressed": "true", title: run.name, onclick: toggle(run) },
    lineSample(run.style), el("span", {}, run.name));
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Runs: press to hide or show" },
    runs.map(button));
  const window = () => (state.window > 1 ? `mean of ${state.window} steps` : "off");
  const said = el("output", {}, window());
  const smoothing = el("input", {
    type: "range", id: "smoothing", min: 1, max: 100, value: state.window,
    oninput: ({ target }) => {
      state.window = Number(target.value);
      said.textContent = window();
      redraw();
    },
  });
  const search = el("input", {
    type: "search", id: "metric-filter", placeholder: "Filter metrics", "aria-label": "Filter metrics by name",
    oninput: ({ target }) => {
      state.words = lower(target.value.trim());
      filter();
    },
  });
  const tools = el("div", { class: "tools" }, legend,
    el("label", { class: "smoothing" }, "Smoothing", smoothing, said), search);
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

/** What a metric means: the line of its key, of the longest key it extends, or of a pattern like `grades/<verdict>`. */
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
  const plot = el("div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${key}: arrow keys read values` });
  const caption = el("figcaption", {}, el("h3", { title: key }, key), el("p", { title: help }, help));
  const node = el("figure", { class: "chart" }, caption, plot, reading);
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
    const value = (line) => el("span", {}, lineSample(line.style), el("span", { class: "name" }, line.name),
      el("span", { class: "value" }, number(line.value)));
    reading.replaceChildren(el("b", {}, `step ${count(at)}`), ...found.map(value));
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
