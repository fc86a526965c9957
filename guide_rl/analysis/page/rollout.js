// Rollouts: cards side by side, and the tokens of guided ones shaded by their ratios.

const SHOWN = { characters: 1000, head: 700, tokens: 320, headTokens: 230 };

/** A text with what was searched for marked; the middle of a long one is left out until the button is pressed. */
function shortened(text, words) {
  const render = (part) => nodes(marked(part, words));
  const node = el("div", { class: "text", dir: "auto" });
  const whole = (at) => at + Number(/[\udc00-\udfff]/.test(text[at])); // not within a surrogate pair
  const [head, tail] = [SHOWN.head, text.length - (SHOWN.characters - SHOWN.head)].map(whole);
  if (text.length <= SHOWN.characters || (words && lower(text.slice(head, tail)).includes(lower(words)))) {
    node.append(...render(text));
    return node;
  }
  const all = el("button", { class: "all", onclick: () => node.replaceChildren(...render(text)) },
    `… show all ${count(text.length)} characters …`);
  node.append(...render(text.slice(0, head)), all, ...render(text.slice(tail)));
  return node;
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
  const said = el("p", { class: "token-reading muted", "aria-live": "polite" },
    "Point at a token, or press ← →, to read its ratio.");
  const label = "Tokens shaded by ratio; arrow keys read them";
  const text = el("div", { class: "text tokens", tabindex: 0, role: "group", "aria-label": label });
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
    const piece = el("code", {}, pieces[at].replaceAll("\n", "⏎"));
    said.replaceChildren(`token ${at + 1} of ${pieces.length} `, piece, " ", facts);
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
    const all = el("button", { class: "all", onclick: () => text.replaceChildren(...tokens) },
      `… show all ${count(tokens.length)} tokens …`);
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
  const { correct, greedy, guided, index, text, pieces, ratios } = rollout;
  const verdict = rollout.verdict || (correct ? "correct" : "wrong");
  const grade = el("span", { class: correct ? "grade right" : "grade wrong" }, `${correct ? "✓" : "✗"} ${verdict}`);
  const facts = {
    reward: number(rollout.reward),
    advantage: brief(rollout.advantage),
    finish: rollout.finish || "–",
    tokens: number(rollout.tokens),
  };
  const body = pieces && ratios ? shadedTokens(pieces, ratios, words) : shortened(text, words);
  const label = `${guided ? "guided" : "plain"} rollout ${index}`;
  return el("article", { class: "rollout", "data-index": index, "aria-label": label },
    el("header", {}, el("b", {}, `#${index}`), grade, greedy ? el("span", { class: "tag" }, "greedy") : null,
      el("dl", {}, Object.entries(facts).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))),
    body);
}

/** Plain and guided rollouts, each in a column; `tools` stand above them where there are guided ones. */
function rolloutGroups(rollouts, words, tools) {
  const column = (name, members) => {
    const correct = members.filter((rollout) => rollout.correct).length;
    return members.length > 0 && el("section", { class: `group ${lower(name)}`, "aria-label": `${name} rollouts` },
      el("h3", {}, name, " ", el("span", { class: "muted" }, `${correct} of ${members.length} correct`)),
      el("div", { class: "cards" }, members.map((rollout) => rolloutCard(rollout, words))));
  };
  const guided = rollouts.filter((rollout) => rollout.guided);
  const shaded = guided.some((rollout) => rollout.ratios);
  const plain = column("Plain", rollouts.filter((rollout) => !rollout.guided));
  const above = guided.length > 0 && el("div", { class: "shading muted" }, tools, shaded && shadeLegend());
  return [above, plain, column("Guided", guided)].filter(Boolean);
}
