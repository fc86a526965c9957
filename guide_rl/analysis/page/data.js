// From the packed blocks of the page to problems with their histories.

/** What a block holds. */
async function unpack(name) {
  const block = document.getElementById(name);
  if (!block) throw new Error(`part “${name}” is missing: the file is not whole; write the report again`);
  const packed = new Blob([bytes(block.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(packed).text();
  block.remove();
  return JSON.parse(text);
}

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const characters = atob(base64);
  const result = new Uint8Array(characters.length);
  for (let i = 0; i < result.length; i++) result[i] = characters.charCodeAt(i);
  return result;
}

/** Blocks of rollouts: each is unpacked when it is first asked for, and kept. */
class Blocks {
  constructor(kind, cuts) {
    this.kind = kind;
    this.cuts = cuts;
    this.asked = [];
  }

  get length() {
    return this.cuts.length - 1;
  }

  block(i) {
    this.asked[i] ??= unpack(`${this.kind}-${i}`);
    return this.asked[i];
  }

  /** The block with this rollout, and the rollout's place in it. */
  async holding(row) {
    let i = 0;
    while (this.cuts[i + 1] <= row) i++;
    return [await this.block(i), row - this.cuts[i]];
  }
}

const FILTERS = [
  ["all", "All", "every problem"],
  ["rescued", "Rescued", "at some step no plain rollout was correct and a guided one was"],
  ["never", "Never solved", "no rollout was ever correct, plain or guided"],
  ["uniform", "Uniform groups", "at some step all sampled rewards were equal: in training, no gradient"],
  ["regression", "Regression", "at some step more than half of the plain rollouts were correct, at the last none"],
  ["solved", "Solved", "at the last step a plain rollout was correct"],
];

/** The problems, each with its rows of the columns, its history over steps, and the filters that it passes. */
function problemsOf(data) {
  const columns = data.rollouts;
  const problems = data.problems.map((problem, index) => ({ ...problem, index, first: 0, last: 0 }));
  columns.problem.forEach((owner, row) => {
    const problem = problems[owner];
    if (problem.last === 0) problem.first = row;
    problem.last = row + 1;
  });
  for (const problem of problems) {
    problem.moments = momentsOf(problem, columns);
    problem.passes = filtersOf(problem.moments);
  }
  return problems;
}

/** What happened at each step of each model, in order. */
function momentsOf(problem, columns) {
  const found = new Map();
  const models = [];
  for (let row = problem.first; row < problem.last; row++) {
    const [model, step] = [columns.model[row] || "", columns.step[row]];
    const key = `${model} ${step}`;
    if (!models.includes(model)) models.push(model);
    if (!found.has(key)) {
      found.set(key, { model, step, rows: [], plain: 0, plainCorrect: 0, guided: 0, guidedCorrect: 0, rewards: [] });
    }
    const moment = found.get(key);
    const kind = columns.guided[row] ? "guided" : "plain";
    moment.rows.push(row);
    moment[kind] += 1;
    if (columns.correct[row]) moment[`${kind}Correct`] += 1;
    if (!columns.greedy[row]) moment.rewards.push(columns.reward[row]);
  }
  const order = (moment) => [models.indexOf(moment.model), moment.step ?? -1];
  const moments = [...found.values()].sort((a, b) => {
    const [x, y] = [order(a), order(b)];
    return x[0] - y[0] || x[1] - y[1];
  });
  for (const moment of moments) {
    moment.state = moment.plainCorrect ? "solved" : moment.guidedCorrect ? "rescued" : "failed";
    moment.share = moment.plain ? moment.plainCorrect / moment.plain : 0;
    const step = moment.step == null ? "" : `step ${moment.step}`;
    moment.label = [moment.model, step].filter(Boolean).join(", ") || "no step";
  }
  return moments;
}

/** Which of FILTERS a history passes. */
function filtersOf(moments) {
  const passes = new Set(["all"]);
  const plain = moments.filter((moment) => moment.plain);
  const lasts = plain.filter((moment, i) => plain[i + 1]?.model !== moment.model);
  const fell = (last) => {
    const earlier = (moment) => moment.model === last.model && moment.step < last.step && moment.share > 0.5;
    return last.step != null && last.share === 0 && plain.some(earlier);
  };
  const uniform = ({ rewards }) => rewards.length > 1 && rewards.every((reward) => reward === rewards[0]);
  if (moments.some((moment) => moment.state === "rescued")) passes.add("rescued");
  if (moments.length && moments.every((moment) => moment.state === "failed")) passes.add("never");
  if (moments.some(uniform)) passes.add("uniform");
  if (lasts.some(fell)) passes.add("regression");
  if (lasts.some((last) => last.plainCorrect)) passes.add("solved");
  return passes;
}
