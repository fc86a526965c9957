// One problem: its texts and its history over steps.

const SIGNS = { failed: "×", rescued: "▲", solved: "" };
const STATES = {
  failed: "failed: no rollout correct",
  rescued: "rescued: only guided rollouts correct",
  solved: "solved",
};

/** The sign of a step: a cross, a triangle, or a bar as high as the share of correct plain rollouts. */
function stateSign(moment) {
  if (!moment) return el("span", { class: "sign none", title: "no rollouts" }, "·");
  const sign = el("span", { class: `sign ${moment.state}`, "aria-hidden": "true" }, SIGNS[moment.state]);
  if (moment.state === "solved") sign.style.setProperty("--share", `${Math.round(100 * moment.share)}%`);
  return sign;
}

function shares(moment) {
  const plain = moment.plain && `plain ${moment.plainCorrect} of ${moment.plain} correct`;
  const guided = moment.guided && `guided ${moment.guidedCorrect} of ${moment.guided} correct`;
  return [plain, guided].filter(Boolean).join(", ");
}

/** The strip of steps: one cell each, a line for each model; `select(moment)` is called on a click or an arrow key. */
function historyStrip(problem, chosen, select) {
  const models = [...new Set(problem.moments.map((moment) => moment.model))];
  const cell = (moment) => el("button", {
    class: "cell",
    "data-step": moment.label,
    "aria-pressed": String(moment === chosen),
    "aria-label": `${moment.label}: ${STATES[moment.state]}; ${shares(moment)}`,
    tabindex: moment === chosen ? 0 : -1,
    title: `${moment.label}: ${shares(moment)}`,
    onclick: () => select(moment),
  }, stateSign(moment));
  const tracks = models.map((model) => el("div", { class: "track" },
    model && el("span", { class: "model", title: model }, model),
    problem.moments.filter((moment) => moment.model === model).map(cell)));
  const strip = el("div", { class: "strip", role: "group", "aria-label": "History over steps" }, tracks);
  strip.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = move && problem.moments[problem.moments.indexOf(chosen) + move];
    if (!next) return;
    event.preventDefault();
    select(next);
    document.querySelector(".strip [aria-pressed=true]")?.focus();
  });
  return strip;
}

function stripLegend() {
  const item = (state, text, share = 1) => el("span", {}, stateSign({ state, share }), text);
  return el("p", { class: "strip-legend muted" }, item("failed", "failed"), item("rescued", "rescued by guidance"),
    item("solved", "solved; height: share of plain rollouts", 0.6));
}

/** What stands above the history: names, question, answer and guidance. `others` are the same problem in other runs. */
function problemHead(problem, runs, others, words, select) {
  const text = (value, kind = "text") => el("div", { class: kind }, nodes(marked(value, words)));
  const other = (same) => el("button", { class: "link", onclick: () => select(same) }, runs[same.run]);
  const names = [runs[problem.run], problem.set, problem.stratum].filter(Boolean).join(" · ");
  const short = (problem.guidance ?? "").length < 600;
  return el("section", { class: "problem", "aria-label": "Problem" },
    el("h2", {}, problem.id),
    el("p", { class: "muted facts" }, names, others.length > 0 && [" · also in ", others.map(other)]),
    text(problem.question, "text question"),
    el("dl", { class: "answer" }, el("dt", {}, "Answer"), el("dd", {}, text(problem.answer))),
    problem.guidance && el("details", { class: "guidance", open: short },
      el("summary", {}, "Guidance"), text(problem.guidance)));
}

/** The strip of steps with its legend and, in words, what happened at the chosen one. */
function historyOf(problem, chosen, select) {
  return el("section", { class: "history", "aria-label": "History" },
    historyStrip(problem, chosen, select), stripLegend(),
    el("p", { class: "now", "aria-live": "polite" },
      el("b", {}, chosen.label), ` ${STATES[chosen.state]}; ${shares(chosen)}`));
}
