"use strict";
// Elements and texts. Every text becomes a text node, so nothing that a model wrote can become markup.

// Control characters, marks that turn the direction of text, and half surrogate pairs: shown, not obeyed.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu;

/** The text with a sign for each character that would not be seen. */
function visible(text) {
  return String(text ?? "").replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** An element. Attributes named "on…" are listeners, false ones are left out; children are texts, nodes or lists. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, visible(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child == null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

const COUNTS = new Intl.NumberFormat("en-US");

/** A whole number with commas. */
function count(value) {
  return COUNTS.format(value);
}

/** A number in four significant digits; a dash for what is missing. */
function number(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e9) text = count(value);
  else if (size >= 1e6 || size < 1e-4) text = value.toExponential(2);
  else text = String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

/** The text in small letters, to search in. */
function lower(text) {
  return String(text ?? "").toLowerCase();
}

/** The text with what was searched for in <mark>: a list of texts and nodes. */
function marked(value, words) {
  const text = String(value ?? "");
  if (!words) return [text];
  const pattern = new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    parts.push(text.slice(end, found.index), el("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}

/** Nodes of texts and nodes. */
function nodes(parts) {
  return parts.map((part) => (part instanceof Node ? part : document.createTextNode(visible(part))));
}
