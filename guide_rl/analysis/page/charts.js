// Line charts as SVG.

const CHART = { width: 320, height: 168, left: 42, right: 10, top: 8, bottom: 22 };
const DASHES = ["", "6 3", "2 2", "8 3 2 3"];
const MARKS = [
  "M-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0Z",
  "M-2.4-2.4h4.8v4.8h-4.8Z",
  "M0-3.2 3 2.4H-3Z",
  "M0-3.4 3 0 0 3.4-3 0Z",
  "M0 3.2 3-2.4H-3Z",
  "M-2.6-2.6 2.6 2.6M-2.6 2.6 2.6-2.6",
  "M-3 0H3M0-3V3",
];

/** Colour, dash and mark of the n-th run: told apart in grey too. */
function lineStyle(n) {
  return { colour: `var(--line-${n % 7})`, dash: DASHES[n % 4], mark: MARKS[(n + Math.floor(n / 28)) % 7] };
}

/** A piece of line with its mark, for legends. */
function lineSample(style) {
  const ink = { stroke: style.colour, fill: style.colour };
  return svg("svg", { viewBox: "0 0 30 10", class: "sample", "aria-hidden": "true", ...ink },
    svg("path", { d: "M1 5H29", "stroke-width": 1.8, "stroke-dasharray": style.dash, fill: "none" }),
    svg("path", { d: style.mark, transform: "translate(15 5)" }));
}

/** Round numbers from low to high, about `wanted` of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const result = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    result.push(Number((i * step).toPrecision(12)));
  }
  return result;
}

/** A short number for an axis. */
function tickText(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${number(value / 1e6)}M`;
  if (size >= 1e4) return `${number(value / 1e3)}k`;
  return number(value);
}

/** At each step the mean of the values of the last `width` steps; missing ones are left out. */
function smoothed({ x, y }, width) {
  if (width <= 1) return y;
  let first = 0;
  return y.map((value, i) => {
    while (x[first] <= x[i] - width) first += 1;
    const known = y.slice(first, i + 1).filter((other) => other != null);
    return value == null ? null : known.reduce((sum, other) => sum + other, 0) / known.length;
  });
}

/** The lowest and highest of all numbers, a little apart when they are one number. */
function span(lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (value == null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  return low === high ? [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)] : [low, high];
}

/** A chart of lines [{name, x, y, style}]: its SVG, and a function that gives the values nearest to a place in it. */
function lineChart(lines, window, label) {
  const { width, height, left, right, top, bottom } = CHART;
  const drawn = lines.map((line) => ({ ...line, smooth: smoothed(line, window) }));
  const [firstX, lastX] = span(drawn.map((line) => line.x));
  let [low, high] = span(drawn.flatMap((line) => [line.y, line.smooth]));
  if (low > 0 && low < 0.4 * high) low = 0;
  const pad = (high - low) * 0.04;
  [low, high] = [low === 0 ? 0 : low - pad, high + pad];
  const atX = (x) => left + ((x - firstX) / (lastX - firstX)) * (width - left - right);
  const atY = (y) => height - bottom - ((y - low) / (high - low)) * (height - top - bottom);
  const path = (line, values) => {
    let d = "", pen = "M";
    values.forEach((y, i) => {
      if (y == null) return void (pen = "M");
      d += `${pen}${atX(line.x[i]).toFixed(1)} ${atY(y).toFixed(1)}`;
      pen = "L";
    });
    return d;
  };
  const grid = ticks(low, high, 4).map((y) => [
    svg("path", { class: "grid", d: `M${left} ${atY(y)}H${width - right}` }),
    svg("text", { x: left - 6, y: atY(y) + 3.5, "text-anchor": "end" }, tickText(y)),
  ]);
  const below = ticks(firstX, lastX, 5).filter(Number.isInteger).map((x) =>
    svg("text", { x: atX(x), y: height - 6, "text-anchor": "middle" }, tickText(x)));
  below.push(svg("text", { x: left - 6, y: height - 6, "text-anchor": "end" }, "step"));
  const marks = (line) => {
    const every = Math.max(1, Math.ceil(line.x.length / 8));
    return line.smooth.map((y, i) => y != null && (i % every === 0 || line.x.length < 20) &&
      svg("path", { d: line.style.mark, transform: `translate(${atX(line.x[i]).toFixed(1)} ${atY(y).toFixed(1)})` }));
  };
  const body = drawn.map(({ style, ...line }) => svg("g", { stroke: style.colour, fill: style.colour, class: "line" },
    line.smooth.some((y, i) => y !== line.y[i]) && svg("path", { d: path(line, line.y), class: "faint", fill: "none" }),
    svg("path", { d: path(line, line.smooth), "stroke-dasharray": style.dash, fill: "none" }),
    marks({ style, ...line })));
  const cursor = svg("path", { class: "cursor", d: "" });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    grid, below, body, cursor);
  const steps = [...new Set(drawn.flatMap((line) => line.x))].sort((a, b) => a - b);
  const nearer = (x) => (best, step) => (Math.abs(step - x) < Math.abs(best - x) ? step : best);
  return {
    picture, steps,
    /** The step nearest to a place between 0 (left edge of the picture) and 1. */
    stepAt: (place) =>
      steps.reduce(nearer(firstX + ((place * width - left) / (width - left - right)) * (lastX - firstX))),
    /** Move the cursor to a step (null: away): the lines with a value there. */
    read(step) {
      cursor.setAttribute("d", step == null ? "" : `M${atX(step)} ${top}V${height - bottom}`);
      if (step == null) return null;
      const values = drawn.map((line) => ({ ...line, value: line.smooth[line.x.indexOf(step)] }));
      return values.filter((line) => line.value != null);
    },
  };
}
