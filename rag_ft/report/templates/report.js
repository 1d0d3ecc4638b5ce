// The table of questions. Texts come from documents, so they are inserted as text, never as markup.
(() => {
  "use strict";
  const PAGE_ROWS = 50, EXCERPT_CHARACTERS = 110;
  const data = JSON.parse(document.getElementById("questions-data").textContent);
  const at = (id) => document.getElementById(id);
  const body = at("questions-rows");
  const state = {
    role: data.candidates[0][0], words: [], kind: "", cause: "", slice: "", sort: "", descending: false, page: 0,
  };
  const prepared = new Map();

  const kindOf = (row) => {
    const before = row.b ?? Infinity, after = row.a ?? Infinity;
    return after < before ? "win" : after > before ? "loss" : "same";
  };
  const discount = (rank) => (rank === null ? 0 : 1 / Math.log2(rank + 1));

  // The text and the change of each row are computed once per candidate.
  const rowsOf = (role) => {
    if (!prepared.has(role)) {
      prepared.set(role, data.rows[role].map((row) => ({
        ...row,
        kind: kindOf(row),
        change: discount(row.a) - discount(row.b),
        text: [row.q, ...data.passages[row.w], ...row.i.flatMap((index) => data.passages[index])].join(" ").toLowerCase(),
      })));
    }
    return prepared.get(role);
  };

  const SORTS = {
    question: (one, other) => one.q.localeCompare(other.q),
    before: (one, other) => (one.b ?? Infinity) - (other.b ?? Infinity) || one.change - other.change,
    after: (one, other) => (one.a ?? Infinity) - (other.a ?? Infinity) || one.change - other.change,
    change: (one, other) => one.change - other.change,
  };
  // Infinity - Infinity is NaN: two ranks beyond the top are equal.
  const ordered = (compare) => (one, other) => compare(one, other) || 0;

  const filtered = () => {
    const rows = rowsOf(state.role).filter((row) =>
      (!state.kind || row.kind === state.kind) &&
      (state.cause === "" || row.c.some(([cause]) => String(cause) === state.cause)) &&
      (state.slice === "" || row.s.includes(Number(state.slice))) &&
      state.words.every((word) => row.text.includes(word)));
    if (state.sort) {
      rows.sort(ordered(SORTS[state.sort]));
      if (state.descending) rows.reverse();
    }
    return rows;
  };

  const element = (name, text, className) => {
    const created = document.createElement(name);
    if (text !== undefined) created.textContent = text;
    if (className) created.className = className;
    return created;
  };
  const cell = (label, className) => {
    const created = element("td", undefined, className);
    created.setAttribute("role", "cell");
    if (label) created.dataset.label = label;
    return created;
  };
  // A long passage shows its start, and the rest when it is opened.
  const excerpt = (index) => {
    const [document_, text] = data.passages[index];
    const name = element("span", document_, "document");
    name.dir = "auto";
    if (text.length <= EXCERPT_CHARACTERS) {
      const passage = element("span", text, "passage");
      passage.dir = "auto";
      return [name, passage];
    }
    const whole = element("details"), start = element("summary", `${text.slice(0, EXCERPT_CHARACTERS).trimEnd()}…`, "start");
    const rest = element("p", text);
    start.dir = rest.dir = "auto";
    whole.append(start, rest);
    return [name, whole];
  };
  const rank = (value) => (value === null ? `not in top ${data.depth}` : String(value));
  const WORDS = { win: "better", loss: "worse", same: "same" };

  const tableRow = (row) => {
    const line = element("tr");
    line.setAttribute("role", "row");
    const question = cell();
    question.textContent = row.q;
    question.dir = "auto";
    const before = cell("before", "rank"), after = cell("after", "rank"), moved = cell("", `moved ${row.kind}`);
    before.textContent = rank(row.b);
    after.textContent = rank(row.a);
    moved.append(element("span", WORDS[row.kind], "word"));
    const why = cell(row.c.length ? "possible causes" : "", "why");
    for (const [cause, text] of row.c) {
      const evidence = element("span", text, "shows");
      evidence.dir = "auto";
      why.append(element("span", data.causes[cause], "cause"), evidence);
    }
    const relevant = cell("relevant passage");
    relevant.append(...excerpt(row.w));
    const above = cell(row.i.length ? "ranked above it" : "");
    if (row.i.length) above.append(...excerpt(row.i[0]));
    if (row.i.length > 1) {
      const more = element("details");
      more.append(element("summary", `${row.i.length - 1} more`, "more"));
      for (const index of row.i.slice(1)) {
        const passage = element("p");
        passage.append(...excerpt(index));
        more.append(passage);
      }
      above.append(more);
    }
    line.append(question, before, after, moved, why, relevant, above);
    return line;
  };

  const show = () => {
    const rows = filtered();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS));
    state.page = Math.min(state.page, pages - 1);
    body.replaceChildren(...rows.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS).map(tableRow));
    const total = rowsOf(state.role).length;
    at("questions-count").textContent =
      `${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")} questions, page ${state.page + 1} of ${pages}`;
    at("questions-previous").disabled = state.page === 0;
    at("questions-next").disabled = state.page >= pages - 1;
  };
  const change = (name, value) => {
    state[name] = value;
    state.page = 0;
    show();
  };

  const fill = (select, names) => {
    names.forEach((name, index) => select.append(new Option(name, String(index))));
    select.parentElement.hidden = !names.length;
  };
  fill(at("questions-cause"), data.causes);
  fill(at("questions-slice"), data.slices);
  if (data.candidates.length > 1) {
    for (const [role, label] of data.candidates) at("questions-role").append(new Option(label, role));
    at("questions-role").parentElement.hidden = false;
  }
  at("questions-search").addEventListener("input", (event) =>
    change("words", event.target.value.toLowerCase().split(/\s+/).filter(Boolean)));
  for (const name of ["kind", "cause", "slice", "role"]) {
    at(`questions-${name}`).addEventListener("change", (event) => change(name, event.target.value));
  }
  for (const button of document.querySelectorAll("#questions-table thead button")) {
    button.addEventListener("click", () => {
      state.descending = state.sort === button.value && !state.descending;
      for (const head of document.querySelectorAll("#questions-table thead th[aria-sort]")) head.setAttribute("aria-sort", "none");
      button.closest("th").setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      change("sort", button.value);
    });
  }
  const turn = (by) => () => {
    state.page += by;
    show();
    at("questions-table").scrollIntoView({ block: "start" });
  };
  at("questions-previous").addEventListener("click", turn(-1));
  at("questions-next").addEventListener("click", turn(1));
  at("questions-controls").hidden = at("questions-pages").hidden = at("questions-table").hidden = false;
  show();
})();
