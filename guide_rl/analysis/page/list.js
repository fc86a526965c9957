// A list of which only the rows in sight are in the document.

class RowList {
  /** `row(item)` gives what stands in a row; `choose(item)` is called on a click. All rows have one height. */
  constructor(label, height, row, choose) {
    Object.assign(this, { height, row, items: [], chosen: -1 });
    this.space = el("div", { class: "space", role: "presentation" });
    const attributes = { class: "rows", id: "rows", tabindex: 0, role: "listbox", "aria-label": label };
    this.node = el("div", attributes, this.space);
    this.node.addEventListener("scroll", () => this.later());
    this.node.addEventListener("click", (event) => {
      const place = event.target.closest("[role=option]")?.dataset.place;
      if (place !== undefined) choose(this.items[place]);
    });
    new ResizeObserver(() => this.later()).observe(this.node);
  }

  /** Show these items, with the chosen one (if it is among them) in sight. */
  show(items, item) {
    this.items = items;
    this.space.style.height = `${items.length * this.height}px`;
    this.choose(item);
  }

  /** Mark an item as chosen and bring it into sight. */
  choose(item) {
    this.chosen = this.items.indexOf(item);
    if (this.chosen >= 0) {
      const top = this.chosen * this.height;
      const end = top + this.height - this.node.clientHeight;
      if (this.node.scrollTop > top) this.node.scrollTop = top;
      else if (this.node.scrollTop < end) this.node.scrollTop = end;
    }
    this.draw();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    const { scrollTop, clientHeight } = this.node;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - 4);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.height) + 4);
    const rows = [];
    for (let place = first; place < last; place++) {
      const node = el("div", {
        role: "option", id: `row-${place}`, "data-place": place, "aria-selected": String(place === this.chosen),
        "aria-posinset": place + 1, "aria-setsize": this.items.length,
      }, this.row(this.items[place]));
      node.style.top = `${place * this.height}px`;
      rows.push(node);
    }
    this.space.replaceChildren(...rows);
    const active = this.chosen >= first && this.chosen < last ? `row-${this.chosen}` : "";
    this.node.setAttribute("aria-activedescendant", active);
  }
}
