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
    this.search = el("input", {
      type: "search", id: "search", placeholder: "Search texts ( / )",
      "aria-label": "Search questions, answers, guidance and rollouts",
      oninput: () => this.set({ q: this.search.value }),
    });
    this.selects = FACETS.map(([name, label]) =>
      el("select", { "aria-label": label, id: `facet-${name}`, onchange: pick(name) }));
    this.chips = FILTERS.map(([key, label, help]) => {
      const attributes = { class: "chip", "data-filter": key, title: help, onclick: () => this.set({ show: key }) };
      return el("button", attributes, label, " ", el("span", { class: "count" }));
    });
    this.shader = el("input", { type: "checkbox", id: "shading", checked: true, onchange: () => this.show() });
    this.said = el("p", { class: "muted said", role: "status", id: "found" });
    this.list = new RowList("Problems", ROW_HEIGHT, (problem) => this.row(problem), (problem) => {
      this.select(problem);
      if (this.node.clientHeight > innerHeight) this.detail.scrollIntoView(); // below the list on a narrow screen
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
    const fits = (problem, name) => !this.choice[name] || this.facet(problem, name) === this.choice[name];
    const passes = (problem, without) => names.every((name) => name === without || fits(problem, name)) &&
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
    const shown = `${count(this.shown.length)} of ${count(this.problems.length)} problems`;
    this.said.textContent = shown + searching + reading;
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
    return [
      stateSign(last),
      el("span", { class: "name" }, problem.id),
      el("span", { class: "muted where" }, where.filter(Boolean).join(" · ")),
      el("span", { class: "share", title: last && shares(last) }, last ? `${last.plainCorrect}/${last.plain}` : ""),
      el("span", { class: "muted question" }, problem.question.slice(0, 160)),
    ];
  }

  /** Show a problem, at a step if one is named: the last one where something happened otherwise. */
  select(problem, label) {
    this.problem = problem;
    this.moment = problem && (problem.moments.find((moment) => moment.label === label) ?? this.telling(problem));
    this.list.choose(problem);
    this.show();
    this.changed();
  }

  /** The step to begin with: the last where the search finds something, or was rescued, or with guidance, or of all. */
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

  /** Draw the chosen problem; its rollouts follow when they are unpacked. */
  async show() {
    const { problem, moment, detail } = this;
    if (!problem) return detail.replaceChildren(el("p", { class: "empty" }, "No problem is chosen; ? shows the keys."));
    const same = (other) => other !== problem && other.id === problem.id && other.set === problem.set;
    const words = this.choice.q.trim();
    const head = problemHead(problem, this.runs, this.problems.filter(same), words, (other) => this.select(other));
    const history = moment && historyOf(problem, moment, (other) => this.at(other));
    const place = el("div", { class: "groups" }, el("p", { class: "empty" }, moment ? "Unpacking…" : "No rollouts."));
    const held = detail.contains(document.activeElement) && document.activeElement.closest(".strip");
    const scrolled = this.drawn === problem ? detail.scrollTop : 0;
    this.drawn = problem;
    detail.replaceChildren(...[head, history, place].filter(Boolean));
    if (!moment) return;
    const [strip, cell] = [history.querySelector(".strip"), history.querySelector("[aria-pressed=true]")];
    strip.scrollTop = cell.offsetTop - strip.offsetTop - strip.clientHeight / 2;
    if (held) cell.focus();
    const rollouts = await this.rollouts(moment);
    if (!detail.contains(place)) return;
    const tools = el("label", {}, this.shader, " shade tokens by ratio");
    place.replaceChildren(...rolloutGroups(rollouts, words, tools));
    detail.scrollTop = scrolled;
  }

  /** The rollouts of a step, as objects of their columns. */
  async rollouts(moment) {
    const all = await Promise.all(moment.rows.map(async (row) => {
      const rollout = {};
      for (const [name, column] of Object.entries(this.columns)) rollout[name] = column[row];
      const kinds = rollout.guided && this.shader.checked ? [this.texts, this.tokens] : [this.texts];
      for (const blocks of kinds) {
        const [block, place] = await blocks.holding(row);
        for (const [name, column] of Object.entries(block)) rollout[name] = column[place];
      }
      return rollout;
    }));
    return all.sort((a, b) => b.greedy - a.greedy || a.index - b.index);
  }

  /** What a link keeps: names and values; empty ones are left out of it. */
  link() {
    const { problem, moment, choice } = this;
    const show = choice.show === "all" ? "" : choice.show;
    if (!problem) return { ...choice, show };
    return { ...choice, show, in: this.runs[problem.run], of: problem.set, problem: problem.id, at: moment?.label };
  }

  /** Take up what a link keeps; names that are not here are left out. */
  restore(kept) {
    const same = (value, name) => value.toWellFormed() === kept.get(name); // an address holds no half surrogate pairs
    const values = (name) => this.problems.map((problem) => this.facet(problem, name));
    const known = (name) => values(name).find((value) => same(value, name));
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
