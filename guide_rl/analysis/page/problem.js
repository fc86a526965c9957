// One problem: its texts, its history over steps, and the rollouts of a step side by side.

const SIGNS = { failed: "×", rescued: "▲", solved: "" };
const STATES = { failed: "failed: no rollout correct", rescued: "rescued: only guided rollouts correct", solved: "solved" };

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
    class: "cell", "data-step": moment.label, "aria-pressed": String(moment === chosen), tabindex: moment === chosen ? 0 : -1,
    "aria-label": `${moment.label}: ${STATES[moment.state]}; ${shares(moment)}`,
    title: `${moment.label}: ${shares(moment)}`, onclick: () => select(moment),
  }, stateSign(moment));
  const tracks = models.map((model) => el("div", { class: "track" }, model && el("span", { class: "model", title: model }, model),
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

const SHOWN = { characters: 1000, head: 700, tokens: 320, headTokens: 230 };

/** A text with what was searched for marked; the middle of a long one is left out until the button is pressed. */
function shortened(text, words) {
  const render = (part) => nodes(marked(part, words));
  const node = el("div", { class: "text", dir: "auto" });
  const tail = text.length - (SHOWN.characters - SHOWN.head);
  if (text.length <= SHOWN.characters || (words && lower(text.slice(SHOWN.head, tail)).includes(lower(words)))) {
    node.append(...render(text));
    return node;
  }
  const all = el("button", { class: "all", onclick: () => node.replaceChildren(...render(text)) },
    `… show all ${count(text.length)} characters …`);
  node.append(...render(text.slice(0, SHOWN.head)), all, ...render(text.slice(tail)));
  return node;
}

function nodes(parts) {
  return parts.map((part) => (part instanceof Node ? part : document.createTextNode(visible(part))));
}

/** The shade of a ratio: its logarithm, from -1 (a thousandth or less) over 0 (one) to 1 (a thousand or more). */
function shade(ratio) {
  if (ratio == null) return null;
  return Math.max(-1, Math.min(1, Math.log10(Math.max(ratio, 1e-9)) / 3));
}

function shadeOf(node, level) {
  node.className = level == null ? "unknown" : level < 0 ? "low" : level > 0.1 ? "high above" : "high";
  if (level) node.style.setProperty("--depth", `${Math.round(100 * Math.abs(level) ** 0.85)}%`);
  return node;
}

/** The places of tokens in which a part of what was searched for is. */
function tokensWith(pieces, words) {
  const found = new Set();
  const small = pieces.map(lower);
  const text = small.join("");
  let [token, end] = [-1, 0];
  for (let at = words ? text.indexOf(lower(words)) : -1; at >= 0; at = text.indexOf(lower(words), at + words.length)) {
    while (end <= at) end += small[++token].length;
    found.add(token);
    while (end < at + words.length) {
      end += small[++token].length;
      found.add(token);
    }
  }
  return found;
}

/** The tokens of a guided rollout, shaded by their ratios; the value is read by pointing or with the arrow keys. */
function shadedTokens(pieces, ratios, words) {
  const said = el("p", { class: "token-reading muted", "aria-live": "polite" }, "Point at a token, or press ← →, to read its ratio.");
  const text = el("div", { class: "text tokens", tabindex: 0, role: "group", "aria-label": "Tokens shaded by ratio; arrow keys read them" });
  let at = -1;
  const tokens = pieces.map((piece, i) => shadeOf(el("span", { "data-token": i }, piece), shade(ratios[i])));
  const found = tokensWith(pieces, words);
  for (const i of found) tokens[i].classList.add("found");
  const hidden = [...found].some((i) => i >= SHOWN.headTokens && i < tokens.length + SHOWN.headTokens - SHOWN.tokens);
  const read = (i) => {
    tokens[at]?.classList.remove("read");
    at = i;
    tokens[at].classList.add("read");
    const facts = el("b", {}, ratios[at] == null ? "no ratio" : `ratio ${number(ratios[at])}`);
    said.replaceChildren(`token ${at + 1} of ${pieces.length} `, el("code", {}, pieces[at].replaceAll("\n", "⏎")), " ", facts);
  };
  text.addEventListener("pointerover", (event) => {
    const i = event.target.dataset?.token;
    if (i !== undefined) read(Number(i));
  });
  text.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !tokens.length) return;
    event.preventDefault();
    event.stopPropagation();
    const inText = tokens.filter((token) => token.isConnected);
    const place = at < 0 ? -1 : inText.indexOf(tokens[at]);
    read(tokens.indexOf(inText[Math.max(0, Math.min(inText.length - 1, place + move))]));
  });
  if (tokens.length <= SHOWN.tokens || hidden) text.append(...tokens);
  else {
    const all = el("button", { class: "all", onclick: () => text.replaceChildren(...tokens) }, `… show all ${count(tokens.length)} tokens …`);
    text.append(...tokens.slice(0, SHOWN.headTokens), all, ...tokens.slice(SHOWN.headTokens - SHOWN.tokens));
  }
  return [text, said];
}

function shadeLegend() {
  const sample = (ratio) => shadeOf(el("span", {}, number(ratio)), shade(ratio));
  return el("span", { class: "shade-legend" }, "ratio of plain to guided probability ",
    el("span", { class: "tokens" }, [0.001, 0.01, 0.1, 1, 10, 100, 1000].map(sample)));
}

function brief(value) {
  return value == null ? "–" : number(Number(value.toPrecision(3)));
}

/** A rollout: what it got, and its text or its shaded tokens. */
function rolloutCard(rollout, words) {
  const { correct, verdict, greedy, guided, index, reward, advantage, finish, tokens, text, pieces, ratios } = rollout;
  const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
  const grade = el("span", { class: correct ? "grade right" : "grade wrong" }, `${correct ? "✓" : "✗"} ${verdict || (correct ? "correct" : "wrong")}`);
  const body = pieces && ratios ? shadedTokens(pieces, ratios, words) : [shortened(text, words)];
  return el("article", { class: "rollout", "data-index": index, "aria-label": `${guided ? "guided" : "plain"} rollout ${index}` },
    el("header", {}, el("b", {}, `#${index}`), grade, greedy ? el("span", { class: "tag" }, "greedy") : null,
      el("dl", {}, fact("reward", number(reward)), fact("advantage", brief(advantage)), fact("finish", finish || "–"), fact("tokens", number(tokens)))),
    body);
}
