// The view of rollouts: a list of problems with search and filters, and beside it the problem that was chosen.

const ROW_HEIGHT = 50;
const FACETS = [["run", "Run"], ["set", "Set"], ["stratum", "Stratum"]];

class RolloutsView {
  /** `changed()` is called when what a link should keep has changed. */
  constructor(data, changed) {
    Object.assign(this, { data, changed, problems: problemsOf(data), columns: data.rollouts });
    this.runs = data.runs.map((run) => run.name);
    this.texts = new Blocks("texts", data.cuts);
    this.tokens = new Blocks("tokens", data.cuts);
    this.choice = { show: "all", run: "", set: "", stratum: "", q: "" };
    this.shading = true;
    this.problem = null;
    this.moment = null;
    this.haystacks = this.problems.map((problem) =>
      [problem.id, problem.question, problem.answer, problem.guidance].map(lower));
    this.fields = 4; // the texts of rollouts stand behind these
    this.build();
    this.update();
  }

  facet(problem, name) {
    return name === "run" ? this.runs[problem.run] : problem[name] ?? "";
  }

  build() {
    const pick = (name) => (event) => this.set({ [name]: event.target.value });
    this.search = el("input", { type: "search", id: "search", placeholder: "Search texts ( / )", "aria-label": "Search questions, answers, guidance and rollouts",
      oninput: () => this.set({ q: this.search.value }) });
    this.selects = FACETS.map(([name, label]) => el("select", { "aria-label": label, id: `facet-${name}`, onchange: pick(name) }));
    this.chips = FILTERS.map(([key, label, help]) => el("button", { class: "chip", "data-filter": key, title: help,
      onclick: () => this.set({ show: key }) }, label, " ", el("span", { class: "count" })));
    this.said = el("p", { class: "muted said", role: "status", id: "found" });
    this.list = new RowList("Problems", ROW_HEIGHT, (problem) => this.row(problem), (problem) => {
      this.select(problem);
      if (this.node.clientHeight > innerHeight) this.detail.scrollIntoView(); // it stands below the list on a narrow screen
    });
    this.detail = el("div", { class: "detail", id: "detail", tabindex: -1 });
    this.node = el("div", { class: "browser" },
      el("aside", { "aria-label": "Problems" }, this.search, el("div", { class: "facets" }, this.selects),
        el("div", { class: "chips", role: "group", "aria-label": "Filters" }, this.chips), this.said, this.list.node),
      this.detail);
  }

  /** Change what is listed. */
  set(choice) {
    Object.assign(this.choice, choice);
    this.update();
    this.changed();
  }

  /** List what passes the search, the three facets and the filter; each count tells what its own choice would list. */
  update() {
    const words = lower(this.choice.q.trim());
    const found = this.finds(words);
    const names = FACETS.map(([name]) => name);
    const passes = (problem, without) =>
      names.every((name) => name === without || !this.choice[name] || this.facet(problem, name) === this.choice[name]) &&
      (without === "show" || problem.passes.has(this.choice.show));
    names.forEach((name, i) => this.options(this.selects[i], name, found.filter((problem) => passes(problem, name))));
    const open = found.filter((problem) => passes(problem, "show"));
    for (const chip of this.chips) {
      const key = chip.dataset.filter;
      chip.setAttribute("aria-pressed", String(key === this.choice.show));
      chip.querySelector(".count").textContent = count(open.filter((problem) => problem.passes.has(key)).length);
    }
    this.shown = open.filter((problem) => problem.passes.has(this.choice.show));
    if (this.search.value !== this.choice.q) this.search.value = this.choice.q;
    this.say();
    this.list.show(this.shown, this.problem);
  }

  /** The problems with these words; more letters of the same words are looked for among those that had the fewer. */
  finds(words) {
    const { words: before, problems } = this.found ?? {};
    if (words && words === before) return problems;
    const among = before && words.includes(before) ? problems : this.problems;
    const has = (problem) => this.haystacks[problem.index].some((text) => text.includes(words));
    this.found = { words, problems: words ? among.filter(has) : this.problems };
    return this.found.problems;
  }

  options(select, name, problems) {
    const counts = new Map(this.problems.map((problem) => [this.facet(problem, name), 0]));
    for (const problem of problems) counts.set(this.facet(problem, name), counts.get(this.facet(problem, name)) + 1);
    const kinds = name === "stratum" ? "strata" : `${name}s`;
    const option = (value, label) => Object.assign(el("option", {}, label), { value });
    select.replaceChildren(option("", `All ${kinds}`),
      ...[...counts].filter(([value]) => value).map(([value, n]) => option(value, `${value} (${count(n)})`)));
    select.value = this.choice[name];
    select.hidden = counts.size < 2;
  }

  say() {
    const [read, all] = [this.readBlocks ?? 0, this.texts.length];
    const reading = read < all ? `; reading texts, ${Math.round((100 * read) / all)} %` : "";
    const searching = read < all && this.choice.q ? " (of what is read so far)" : "";
    this.said.textContent = `${count(this.shown.length)} of ${count(this.problems.length)} problems${searching}${reading}`;
  }

  /** Unpack the texts of all rollouts, so that search finds them; the page stays usable meanwhile. */
  async readTexts() {
    for (let i = 0; i < this.texts.length; i++) {
      const { text } = await this.texts.block(i);
      const [first, last] = [this.texts.cuts[i], this.texts.cuts[i + 1]];
      for (let row = first; row < last;) {
        const problem = this.problems[this.columns.problem[row]];
        const own = text.slice(row - first, problem.last - first);
        this.haystacks[problem.index].push(...own.map(lower));
        row = problem.last;
      }
      this.readBlocks = i + 1;
      this.say();
      await new Promise((resolve) => setTimeout(resolve));
    }
    this.found = null;
    if (this.choice.q) this.update();
    if (!this.problem && this.shown.length) this.select(this.shown[0]);
    document.body.dataset.texts = "read";
  }

  row(problem) {
    const last = problem.moments.at(-1);
    const where = [problem.stratum || problem.set, this.runs.length > 1 && !this.choice.run && this.runs[problem.run]];
    return [stateSign(last), el("span", { class: "name" }, problem.id), el("span", { class: "muted where" }, where.filter(Boolean).join(" · ")),
      el("span", { class: "share", title: last && shares(last) }, last ? `${last.plainCorrect}/${last.plain}` : ""),
      el("span", { class: "muted question" }, problem.question.slice(0, 160))];
  }

  /** Show a problem, at a step if one is named: the last one where something happened otherwise. */
  select(problem, label) {
    this.problem = problem;
    this.moment = problem && (problem.moments.find((moment) => moment.label === label) ?? this.telling(problem));
    this.list.choose(problem);
    this.show();
    this.changed();
  }

  /** The step to begin with: the last in whose rollouts the search finds something, or that was rescued, or with guided rollouts, or the last of all. */
  telling(problem) {
    const words = lower(this.choice.q.trim());
    const texts = this.haystacks[problem.index].slice(this.fields);
    const hit = words ? texts.findLastIndex((text) => text.includes(words)) : -1;
    if (hit >= 0) return problem.moments.find((moment) => moment.rows.includes(problem.first + hit));
    if (this.choice.show === "regression") return problem.moments.at(-1);
    const rescued = problem.moments.findLast((moment) => moment.state === "rescued");
    return rescued ?? problem.moments.findLast((moment) => moment.guided) ?? problem.moments.at(-1);
  }

  /** Go some problems down (or up) the list. */
  step(move) {
    const place = this.shown.indexOf(this.problem);
    const next = this.shown[place < 0 ? 0 : Math.max(0, Math.min(this.shown.length - 1, place + move))];
    if (next && next !== this.problem) this.select(next);
  }

  /** Go some steps forth (or back) in the problem's history. */
  turn(move) {
    const moments = this.problem?.moments ?? [];
    const next = moments[moments.indexOf(this.moment) + move];
    if (next) this.at(next);
  }

  at(moment) {
    this.moment = moment;
    this.show();
    this.changed();
  }

  /** Draw the chosen problem; texts that are not unpacked yet follow. */
  async show() {
    const { problem, moment } = this;
    if (!problem) return this.detail.replaceChildren(el("p", { class: "empty" }, "Choose a problem. Keys: j and k, [ and ], / and ?."));
    const strip = moment && historyStrip(problem, moment, (other) => this.at(other));
    const place = el("div", { class: "groups" }, el("p", { class: "muted" }, "Unpacking…"));
    const held = this.detail.contains(document.activeElement) && document.activeElement.closest(".strip");
    const same = this.drawn === problem;
    const scrolled = this.detail.scrollTop;
    this.detail.replaceChildren(this.head(problem), ...(moment ? [el("section", { class: "history", "aria-label": "History" },
      strip, stripLegend(), el("p", { class: "now", "aria-live": "polite" }, el("b", {}, moment.label), ` ${STATES[moment.state]}; ${shares(moment)}`))] : []), place);
    this.drawn = problem;
    this.detail.scrollTop = same ? scrolled : 0;
    const cell = strip?.querySelector("[aria-pressed=true]");
    if (cell) strip.scrollTop = cell.offsetTop - strip.offsetTop - strip.clientHeight / 2;
    if (held) cell?.focus();
    if (!moment) return place.replaceChildren(el("p", { class: "empty" }, "This problem has no rollouts."));
    const rollouts = await this.rollouts(moment);
    if (this.problem === problem && this.moment === moment) place.replaceChildren(...this.groups(rollouts));
  }

  head(problem) {
    const others = this.problems.filter((other) => other !== problem && other.id === problem.id && other.set === problem.set);
    const words = this.choice.q.trim();
    const long = (problem.guidance ?? "").length > 600;
    return el("section", { class: "problem", "aria-label": "Problem" },
      el("h2", {}, problem.id),
      el("p", { class: "muted facts" }, [this.runs[problem.run], problem.set, problem.stratum].filter(Boolean).join(" · "),
        others.length > 0 && [" · also in ", others.map((other) => el("button", { class: "link", onclick: () => this.select(other) }, this.runs[other.run]))].flat()),
      el("div", { class: "text question" }, nodes(marked(problem.question, words))),
      el("dl", { class: "answer" }, el("dt", {}, "Answer"), el("dd", { class: "text" }, nodes(marked(problem.answer ?? "", words)))),
      problem.guidance && el("details", { class: "guidance", open: !long }, el("summary", {}, "Guidance"),
        el("div", { class: "text" }, nodes(marked(problem.guidance, words)))));
  }

  /** The rollouts of a step: their columns, texts and tokens, plain and guided apart. */
  async rollouts(moment) {
    const all = await Promise.all(moment.rows.map(async (row) => {
      const [texts, place] = await this.texts.holding(row);
      const rollout = { text: texts.text[place] };
      for (const [name, column] of Object.entries(this.columns)) rollout[name] = column[row];
      if (rollout.guided && this.shading) {
        const [tokens, at] = await this.tokens.holding(row);
        Object.assign(rollout, { pieces: tokens.pieces[at], ratios: tokens.ratios[at] });
      }
      return rollout;
    }));
    return all.sort((a, b) => b.greedy - a.greedy || a.index - b.index);
  }

  groups(rollouts) {
    const plain = rollouts.filter((rollout) => !rollout.guided);
    const guided = rollouts.filter((rollout) => rollout.guided);
    const words = this.choice.q.trim();
    const column = (name, members) => el("section", { class: `group ${name.toLowerCase()}`, "aria-label": `${name} rollouts` },
      el("h3", {}, name, " ", el("span", { class: "muted" }, `${members.filter((rollout) => rollout.correct).length} of ${members.length} correct`)),
      el("div", { class: "cards" }, members.map((rollout) => rolloutCard(rollout, words))));
    const shading = el("label", {}, el("input", { type: "checkbox", id: "shading", checked: this.shading, onchange: (event) => {
      this.shading = event.target.checked;
      this.show();
    } }), " shade tokens by ratio");
    const shaded = guided.some((rollout) => rollout.ratios);
    return [
      guided.length > 0 && el("div", { class: "shading muted" }, shading, shaded && shadeLegend()),
      plain.length > 0 && column("Plain", plain),
      guided.length > 0 && column("Guided", guided),
    ].filter(Boolean);
  }

  /** What a link keeps, as [name, value] pairs. */
  link() {
    const { problem, moment } = this;
    const chosen = problem ? { in: this.runs[problem.run], of: problem.set, problem: problem.id, at: moment?.label ?? "" } : {};
    return { ...this.choice, show: this.choice.show === "all" ? "" : this.choice.show, ...chosen };
  }

  /** Take up what a link keeps; names that are not here are left out. */
  restore(kept) {
    const same = (value, name) => value.toWellFormed() === kept.get(name); // an address holds no half surrogate pairs
    const known = (name) => this.problems.map((problem) => this.facet(problem, name)).find((value) => same(value, name));
    this.choice.q = kept.get("q") ?? "";
    this.choice.show = FILTERS.some(([key]) => key === kept.get("show")) ? kept.get("show") : "all";
    for (const [name] of FACETS) this.choice[name] = known(name) ?? "";
    const problem = this.problems.find((other) =>
      same(other.id, "problem") && same(other.set, "of") && same(this.runs[other.run], "in"));
    this.problem = problem ?? null;
    this.update();
    this.select(problem ?? this.shown[0] ?? null, kept.get("at") ?? "");
  }
}
