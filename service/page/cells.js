// Tables of cells: those that are edited, and those that tell their formula.

import { h, range } from "./dom.js";
import { paint } from "./heat.js";

/**
 * A table of `rows` by `columns` cells that are painted, and of which `pointed(row, column)` hears
 * when they are pointed at or have the focus; one stop of the tab key, and arrow keys within.
 *
 * `hidden` captions are for those who hear the table. `fill(text, share)`, functions of row and
 * column, writes it anew; `marked(row, column)` outlines cells.
 */
export function cells({ caption, hidden, rows, columns, rowName, columnName, ramp, pointed }) {
  const all = range(rows, (row) => range(columns, (column) => h("td", {
    tabIndex: row + column ? -1 : 0,
    onfocus: () => pointed(row, column), onpointerenter: () => pointed(row, column),
  })));
  const element = h("table", { class: "cells", onkeydown: (event) => {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [];
    const row = all.findIndex((each) => each.includes(event.target));
    if (down === undefined || row < 0) return;
    event.preventDefault();
    const next = all[row + down]?.[all[row].indexOf(event.target) + right];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  } },
  h("caption", { class: hidden ? "unseen" : null }, caption),
  columnName && h("thead", {}, h("tr", {}, rowName && h("td"), range(columns, (column) => h("th", { scope: "col" }, columnName(column))))),
  h("tbody", {}, range(rows, (row) => h("tr", {}, rowName && h("th", { scope: "row" }, rowName(row)), all[row]))));
  return {
    element,
    fill(text, share, marked = () => false) {
      for (const [row, each] of all.entries()) {
        for (const [column, cell] of each.entries()) {
          cell.textContent = text(row, column);
          cell.classList.toggle("picked", marked(row, column));
          paint(cell, ramp, share(row, column));
        }
      }
    },
  };
}

/** A field in a cell: `at` is its index, `name` what it is called, `changed(text)` hears each edit. */
export function edited(field, at, name, value, changed) {
  return h("input", {
    type: "text", inputmode: "text", autocomplete: "off", spellcheck: "false", size: 4,
    "data-field": field, "data-at": at.join(","), "aria-label": name, value,
    oninput: (event) => changed(event.target.value),
    onfocus: (event) => event.target.select(),
    onkeydown: moved,
  });
}

// Up and down go to the field above or below, as in a spreadsheet; left and right are the text's.
function moved(event) {
  const by = { ArrowUp: -1, ArrowDown: 1, Enter: 1 }[event.key];
  if (by === undefined) return;
  const cell = event.target.closest("td");
  const row = cell.parentElement;
  const next = (by > 0 ? row.nextElementSibling : row.previousElementSibling)?.children[[...row.children].indexOf(cell)];
  event.preventDefault();
  next?.querySelector("input")?.focus();
}
