"use strict";
(() => {
  const data = JSON.parse(document.getElementById("graph-data").textContent);
  const nodes = data.nodes;
  const byId = (id) => document.getElementById(id);
  const svg = byId("picture");
  const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const SEP = "\u001f";
  const open = new Set();
  const MOST = 600;
  let mode = nodes.some((n) => n.error !== null) ? "error" : nodes.some((n) => n.seconds) ? "time" : "dtype";
  let selected = null;
  let view = null;
  let whole = {};
  let items = new Map();

  // The modules: key of a path -> its nodes
  const groups = new Map();
  const keysOf = nodes.map((node) => node.path.map((_, depth) => node.path.slice(0, depth + 1).join(SEP)));
  keysOf.forEach((keys, index) => keys.forEach((key) => {
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(index);
  }));
  // A module that is called in several places, a ReLU, folds into a box through which everything seems to run: it does not fold
  const scattered = new Set([...groups].filter(([key, indices]) => {
    const inside = new Set(indices);
    const leaf = indices.every((index) => keysOf[index].at(-1) === key);
    const run = /\d+ to \d+$/.test(key);
    return leaf && !run && indices.every((index) => !nodes[index].in.some((maker) => inside.has(maker)));
  }).map(([key]) => key));
  const folds = (key) => groups.get(key).length > 1 && !scattered.has(key);
  const idOf = (key) => (typeof key === "number" ? `n${key}` : `g${key}`);
  const keyOf = (element) => (element.dataset.key[0] === "n" ? Number(element.dataset.key.slice(1)) : element.dataset.key.slice(1));
  const shownAs = (index) => {
    for (const key of keysOf[index]) if (!open.has(key) && folds(key)) return key;
    return index;
  };
  const countShown = () => new Set(nodes.map((_, index) => shownAs(index))).size;
  // Unfold from the outside in, while all of it can still be taken in at a glance
  for (let depth = 1; depth < 9; depth++) {
    const keys = [...groups.keys()].filter((key) => key.split(SEP).length === depth && folds(key));
    if (!keys.length) break;
    keys.forEach((key) => open.add(key));
    if (countShown() > 60) { keys.forEach((key) => open.delete(key)); break; }
  }
  if (countShown() < 2) [...groups.keys()].filter((key) => !key.includes(SEP)).forEach((key) => open.add(key));

  const PALETTE = ["#cfe3f7", "#d9f0d3", "#fde9c4", "#f4d5e6", "#e3dcf5", "#d5eff0", "#f7dcd1", "#e6e6e6"];
  const dtypes = [...new Set(nodes.map((n) => n.dtype))].sort();
  const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);
  const slowest = most(nodes.map((n) => n.seconds || 0));
  const ramp = (share) => {
    const mix = (a, b) => Math.round(a + (b - a) * Math.min(Math.max(share, 0), 1));
    return `rgb(${mix(240, 245)},${mix(246, 150)},${mix(250, 130)})`;
  };
  const errorShare = (error) => (error > 0 ? (Math.log10(error) + 9) / 9 : 0);
  const colour = (indices) => {
    const these = indices.map((i) => nodes[i]);
    if (mode === "error") {
      const found = these.filter((n) => n.error !== null);
      return found.length ? ramp(errorShare(most(found.map((n) => n.error)))) : "#e9ecee";
    }
    if (mode === "time") return slowest ? ramp(these.reduce((sum, n) => sum + (n.seconds || 0), 0) / slowest) : "#e9ecee";
    const kinds = new Set(these.map((n) => n.dtype));
    return kinds.size === 1 ? PALETTE[dtypes.indexOf(these[0].dtype) % PALETTE.length] : "#f4f6f7";
  };
  const number = (value) => (value === 0 ? "0" : Number(value).toPrecision(3));
  const legend = () => {
    const swatch = (fill, text) => `<span class="swatch" style="background:${fill}"></span>${escape(text)} `;
    if (mode === "error") return swatch(ramp(0), "1e-9 or less") + swatch(ramp(0.5), "3e-5") + swatch(ramp(1), "1 or more, of the largest magnitude") + swatch("#e9ecee", "not compared");
    if (mode === "time") return swatch(ramp(0), "0") + swatch(ramp(1), `${number(slowest * 1e6)} µs or more`);
    return dtypes.map((kind, i) => swatch(PALETTE[i % PALETTE.length], kind)).join("");
  };

  // As wide as the browser draws it, so that no box is too small for its text
  const pen = document.createElement("canvas").getContext("2d");
  const widths = new Map();
  const wide = (text, font) => {
    const id = font + text;
    if (!widths.has(id)) { pen.font = `${font} system-ui, sans-serif`; widths.set(id, pen.measureText(text).width); }
    return widths.get(id);
  };
  const TITLE = "600 13px", BELOW = "11px", WIDEST = 230;

  // A number says nothing by itself: `layer3.1`, not `1`
  const nameOf = (key) => {
    const parts = key.split(SEP);
    const first = parts.findLastIndex((part) => !/^\d+$/.test(part));
    return parts.slice(Math.max(first, 0)).join(".");
  };

  const layout = () => {
    const graph = new dagre.graphlib.Graph();
    graph.setGraph({ rankdir: "TB", nodesep: 14, ranksep: 26, marginx: 12, marginy: 12 });
    graph.setDefaultEdgeLabel(() => ({}));
    items = new Map();
    nodes.forEach((node, index) => {
      const key = shownAs(index);
      if (!items.has(key)) items.set(key, { key, indices: [] });
      items.get(key).indices.push(index);
    });
    for (const item of items.values()) {
      const single = typeof item.key === "number";
      const node = nodes[item.indices[0]];
      item.title = single ? node.op : nameOf(item.key);
      item.below = single ? node.path.slice(-2).join(".") : `${item.indices.length} nodes`;
      item.width = Math.min(Math.max(wide((single ? "" : "▸ ") + item.title, TITLE), wide(item.below, BELOW)) + 20, WIDEST);
      graph.setNode(idOf(item.key), { width: item.width, height: 38 });
    }
    const drawn = new Set();
    nodes.forEach((node, index) => {
      const to = shownAs(index);
      node.in.forEach((maker) => {
        const from = shownAs(maker);
        const id = `${idOf(from)}>${idOf(to)}`;
        if (from !== to && !drawn.has(id)) { drawn.add(id); graph.setEdge(idOf(from), idOf(to)); }
      });
    });
    ["inputs", "outputs"].forEach((side) => data[side].forEach((value, place) => {
      const id = `${side}${place}`;
      const at = new Set(value.nodes.map((index) => idOf(shownAs(index))));
      if (!at.size) return;
      graph.setNode(id, { width: Math.min(wide(value.told, BELOW) + 24, 2 * WIDEST), height: 24, told: value.told });
      at.forEach((one) => (side === "inputs" ? graph.setEdge(id, one) : graph.setEdge(one, id)));
    }));
    dagre.layout(graph);
    return graph;
  };
  const short = (text, width, font) => {
    let fits = text.length;
    while (fits > 1 && wide(text.slice(0, fits) + (fits < text.length ? "…" : ""), font) > width - 16) fits -= 1;
    return fits < text.length ? text.slice(0, fits) + "…" : text;
  };
  const draw = (keep) => {
    const graph = layout();
    const box = graph.graph();
    whole = box;
    const edges = graph.edges().map((edge) => {
      const points = graph.edge(edge).points;
      return `<path class="edge" d="M${points.map((p) => `${p.x.toFixed(1)},${p.y.toFixed(1)}`).join("L")}"/>`;
    });
    const boxes = [...items.values()].map((item) => {
      const at = graph.node(idOf(item.key));
      item.x = at.x; item.y = at.y;
      const group = typeof item.key !== "number";
      const wrong = item.indices.some((i) => nodes[i].wrong);
      const dear = item.indices.some((i) => nodes[i].loss?.keep);
      const marks = `${wrong ? ", wrong here" : ""}${dear ? ", worth keeping in float32" : ""}`;
      const label = group ? `module ${item.key.split(SEP).join(".")}, ${item.indices.length} nodes, folded` : `${item.title} node ${nodes[item.indices[0]].name}`;
      const title = (group ? "▸ " : "") + short(item.title, item.width - (group ? 14 : 0), TITLE);
      const below = short(item.below, item.width, BELOW);
      return `<g class="item${group ? " group" : ""}${wrong ? " wrong" : dear ? " dear" : ""}" role="button" tabindex="-1" data-key="${escape(idOf(item.key))}" aria-label="${escape(`${title} ${below}: ${label}${marks}`)}" transform="translate(${(at.x - item.width / 2).toFixed(1)},${(at.y - 19).toFixed(1)})">` +
        `<rect width="${item.width.toFixed(1)}" height="38" rx="6" fill="${colour(item.indices)}"/>` +
        `<text x="9" y="16" class="title">${escape(title)}</text> <text x="9" y="31">${escape(below)}</text></g>`;
    });
    const ends = graph.nodes().map((id) => graph.node(id)).filter((one) => one.told).map((one) =>
      `<g class="end" transform="translate(${(one.x - one.width / 2).toFixed(1)},${(one.y - 12).toFixed(1)})"><rect width="${one.width.toFixed(1)}" height="24" rx="12"/><text x="12" y="16">${escape(short(one.told, one.width - 8, BELOW))}</text></g>`);
    svg.innerHTML = `<g>${edges.join("")}</g><g>${ends.join("")}</g><g>${boxes.join("")}</g>`;
    if (!keep || !view) view = { x: 0, y: 0, w: box.width || 100, h: box.height || 100 };
    if (!keep) fit(box);
    look();
    byId("legend").innerHTML = legend();
    byId("counted").textContent = `${nodes.length} nodes, shown as ${items.size}`;
    mark();
  };
  const fit = (box) => {
    const shape = svg.getBoundingClientRect();
    const scale = Math.max(box.width / shape.width, Math.min(box.height / shape.height, 1.6), 0.6);
    view = { w: shape.width * scale, h: shape.height * scale };
    view.x = (box.width - view.w) / 2; view.y = -6;
  };
  const look = () => svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
  const zoom = (factor, fx = 0.5, fy = 0.5) => {
    view.x += view.w * (1 - factor) * fx; view.y += view.h * (1 - factor) * fy;
    view.w *= factor; view.h *= factor; look();
  };
  const centre = (item) => { view.x = item.x - view.w / 2; view.y = item.y - view.h / 2; look(); };
  const mark = () => {
    const all = [...svg.querySelectorAll(".item")];
    let current = null;
    all.forEach((one) => {
      const on = selected !== null && one.dataset.key === idOf(selected);
      one.classList.toggle("selected", on);
      one.setAttribute("tabindex", "-1");
      if (on) current = one;
    });
    (current || all[0])?.setAttribute("tabindex", "0");
  };
  const list = (title, texts) => texts.length ? `<h4>${escape(title)}</h4><ul>${texts.map((t) => `<li class="mono">${escape(t)}</li>`).join("")}</ul>` : "";
  const parents = (index) => keysOf[index].filter(folds);
  // Two spreads over the same bars: the reference filled, the file as an outline
  const spread = (value) => {
    const heights = (side) => [...side.bars].map((c) => parseInt(c, 36));
    const WIDE = 320, HIGH = 78;
    const step = WIDE / value.reference.bars.length;
    const up = (height) => HIGH - (height / 35) * (HIGH - 4);
    const filled = heights(value.reference).map((h, i) => `<rect class="reference" x="${(i * step).toFixed(1)}" y="${up(h).toFixed(1)}" width="${step.toFixed(1)}" height="${(HIGH - up(h)).toFixed(1)}"/>`);
    const outline = heights(value.file).map((h, i) => `${(i * step).toFixed(1)},${up(h).toFixed(1)}L${((i + 1) * step).toFixed(1)},${up(h).toFixed(1)}`);
    const row = (name, side) => `<tr><th scope="row">${name}</th>${[side.min, side.mean, side.max].map((v) => `<td class="n">${number(v)}</td>`).join("")}</tr>`;
    const strange = value.file.strange + value.reference.strange;
    return `<svg class="spread" viewBox="0 0 ${WIDE} 94" role="img" aria-label="Histogram of ${escape(value.name)}, counts on a logarithmic scale, the reference and the file; the table has their ends">` +
      `${filled.join("")}<path class="file" d="M${outline.join("L")}"/><line x1="0" x2="${WIDE}" y1="${HIGH}" y2="${HIGH}"/><text x="0" y="91">${number(value.low)}</text><text x="${WIDE}" y="91" text-anchor="end">${number(value.high)}</text></svg>` +
      `<table><tr><td></td><th scope="col" class="n">min</th><th scope="col" class="n">mean</th><th scope="col" class="n">max</th></tr>` +
      row(`<span class="swatch" style="background:var(--bar)"></span>reference`, value.reference) + row(`<span class="swatch" style="border:2px solid var(--file)"></span>file`, value.file) + `</table>` +
      (strange ? `<p class="bad">NaN or Inf: ${value.reference.strange} in the reference, ${value.file.strange} in the file</p>` : "");
  };
  const decibels = (ratio) => (ratio === null ? "–" : typeof ratio === "string" ? ratio : ratio.toFixed(1)) + " dB";
  const share = (part, what) => (part ? `${(100 * part).toPrecision(2)} % ${what}` : "");
  const loss = (found) => (found.keep ? `<p class="bad">worth keeping in float32</p>` : "") + `<p>signal to noise ${decibels(found.here)} here, ${decibels(found.own)} by itself, ${decibels(found.costs)} at the outputs when only this is reduced; largest ${number(found.largest)}` +
    ["overflow", "underflow", "clipped"].map((what) => share(found[what], what)).filter(Boolean).map((text) => `; <strong>${text}</strong>`).join("") + "</p>";

  const describe = (key) => {
    const panel = byId("chosen");
    if (typeof key === "number") {
      const node = nodes[key];
      const facts = [];
      if (node.status) facts.push(`${node.status}${node.error !== null ? `, max rel ${number(node.error)}` : ""}`);
      if (node.wrong && node.status !== "wrong here") facts.push("the file is wrong here");
      if (node.seconds) facts.push(`${number(node.seconds * 1e6)} µs`);
      const told = node.rewrites.map((i) => data.rewrites[i]);
      panel.innerHTML = `<h3>${escape(node.op)}</h3><p class="mono">${escape(node.name)}</p>` +
        (facts.length ? `<p>${escape(facts.join("; "))}</p>` : "") + list("Comes from", node.from) +
        (node.lines.length ? `<h4>Code</h4><pre class="code">${node.lines.map(escape).join("\n")}</pre>` : "") +
        (node.values.length ? `<h4>Values</h4>${node.values.map(spread).join("")}` : "") + (node.loss ? `<h4>Fewer digits</h4>${loss(node.loss)}` : "") +
        list("Reads", node.reads) + list("Gives", node.gives) +
        (node.attributes ? `<h4>Attributes</h4><p class="mono">${escape(node.attributes)}</p>` : "") +
        (told.length ? `<h4>Passes that touched it</h4>` + told.map((r) => `<p>${escape(r.pass_name)}${r.rule ? ` (${escape(r.rule)})` : ""}, rewrite ${r.number}</p><pre>${r.before.map((l) => `<del>- ${escape(l)}</del>\n`).join("")}${r.after.map((l) => `<ins>+ ${escape(l)}</ins>\n`).join("")}</pre>`).join("") : "") +
        parents(key).slice(-1).map((k) => `<p><button type="button" data-fold="${escape(k)}">Fold ${escape(k.split(SEP).join("."))}</button></p>`).join("");
    } else {
      const inside = groups.get(key).map((i) => nodes[i]);
      const kinds = {};
      inside.forEach((n) => { kinds[n.op] = (kinds[n.op] || 0) + 1; });
      const worst = inside.filter((n) => n.error !== null);
      const seconds = inside.reduce((sum, n) => sum + (n.seconds || 0), 0);
      panel.innerHTML = `<h3>${escape(key.split(SEP).join("."))}</h3><p>${inside.length} nodes` +
        (worst.length ? `; largest max rel ${number(most(worst.map((n) => n.error)))}` : "") + (seconds ? `; ${number(seconds * 1e6)} µs` : "") + `</p>` +
        list("Operators", Object.entries(kinds).sort((a, b) => b[1] - a[1]).map(([k, n]) => `${n} × ${k}`)) +
        `<p><button type="button" data-unfold="${escape(key)}">Unfold</button></p>`;
    }
  };
  const choose = (key, focus) => {
    selected = key;
    mark();
    describe(key);
    if (focus) svg.querySelector(".item.selected")?.focus({ preventScroll: true });
  };
  const unfold = (key) => {
    open.add(key);
    if (countShown() > MOST) {
      open.delete(key);
      byId("told").textContent = `More than ${MOST} boxes at once: fold another module first.`;
      return;
    }
    draw(true);
    const first = groups.get(key)[0];
    choose(shownAs(first), true);
    centre(items.get(shownAs(first)));
    byId("told").textContent = `${key.split(SEP).join(".")} unfolded`;
  };
  const fold = (key) => {
    [...open].filter((one) => one === key || one.startsWith(key + SEP)).forEach((one) => open.delete(one));
    draw(true);
    choose(key, true);
    centre(items.get(shownAs(groups.get(key)[0])));
    byId("told").textContent = `${key.split(SEP).join(".")} folded`;
  };
  const reveal = (index) => {
    parents(index).forEach((key) => open.add(key));
    draw(true);
    choose(index, false);
    centre(items.get(index));
    byId("told").textContent = `${nodes[index].op} ${nodes[index].name}`;
  };

  svg.addEventListener("click", (event) => {
    const item = event.target.closest(".item");
    if (item && !moved) choose(keyOf(item), true);
  });
  svg.addEventListener("dblclick", (event) => {
    const item = event.target.closest(".item.group");
    if (item) unfold(keyOf(item));
  });
  // Along the data: the first box that reads what this one makes, or that makes what it reads
  const along = (key, forward) => {
    const here = new Set(items.get(key).indices);
    if (!forward) {
      const before = [...here].flatMap((index) => nodes[index].in).filter((index) => !here.has(index));
      return before.length ? shownAs(Math.max(...before)) : null;
    }
    const after = nodes.findIndex((node, index) => !here.has(index) && node.in.some((one) => here.has(one)));
    return after < 0 ? null : shownAs(after);
  };
  const go = (key) => { if (key !== null && key !== undefined) { choose(key, true); centre(items.get(key)); } };
  const letGo = () => {
    selected = null;
    mark();
    byId("chosen").innerHTML = `<p class="soft">Choose a node to see where it comes from.</p>`;
  };
  svg.addEventListener("keydown", (event) => {
    const element = document.activeElement.closest?.(".item");
    const key = element ? keyOf(element) : null;
    const all = [...items.keys()];
    const place = all.indexOf(key);
    if (event.key === "ArrowDown" && place >= 0) go(along(key, true));
    else if (event.key === "ArrowUp" && place >= 0) go(along(key, false));
    else if (event.key === "ArrowRight" && place >= 0) go(all[(place + 1) % all.length]);
    else if (event.key === "ArrowLeft" && place >= 0) go(all[(place - 1 + all.length) % all.length]);
    else if (event.key === "Home" && place >= 0) go(all[0]);
    else if (event.key === "End" && place >= 0) go(all[all.length - 1]);
    else if ((event.key === "Enter" || event.key === " ") && place >= 0) { if (typeof key === "string") unfold(key); else choose(key, true); }
    else if (event.key === "Escape") letGo();
    else if (event.key === "+" || event.key === "=") zoom(0.8);
    else if (event.key === "-") zoom(1.25);
    else return;
    event.preventDefault();
  });
  // From the panel back to the node that it is about
  byId("chosen").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    svg.querySelector(".item.selected")?.focus({ preventScroll: true });
    letGo();
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const shape = svg.getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1.15 : 0.87, (event.clientX - shape.left) / shape.width, (event.clientY - shape.top) / shape.height);
  }, { passive: false });
  let from = null;
  let moved = false;
  svg.addEventListener("pointerdown", (event) => { from = { x: event.clientX, y: event.clientY }; moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!from) return;
    const shape = svg.getBoundingClientRect();
    const dx = event.clientX - from.x;
    const dy = event.clientY - from.y;
    if (!moved && Math.abs(dx) + Math.abs(dy) < 4) return;
    moved = true;
    view.x -= (dx * view.w) / shape.width; view.y -= (dy * view.h) / shape.height;
    from = { x: event.clientX, y: event.clientY };
    look();
  });
  window.addEventListener("pointerup", () => { from = null; });
  byId("chosen").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.unfold !== undefined) unfold(button.dataset.unfold);
    if (button?.dataset.fold !== undefined) fold(button.dataset.fold);
  });
  byId("zoom-in").addEventListener("click", () => zoom(0.8));
  byId("zoom-out").addEventListener("click", () => zoom(1.25));
  byId("fold-all").addEventListener("click", () => { open.clear(); selected = null; draw(false); });
  byId("whole").addEventListener("click", () => draw(false));
  document.querySelectorAll("input[name=colour]").forEach((input) => {
    input.checked = input.value === mode;
    input.disabled = (input.value === "error" && !nodes.some((n) => n.error !== null)) || (input.value === "time" && !slowest);
    input.addEventListener("change", () => {
      mode = input.value;
      svg.querySelectorAll(".item").forEach((one) => one.querySelector("rect").setAttribute("fill", colour(items.get(keyOf(one)).indices)));
      byId("legend").innerHTML = legend();
    });
  });
  const search = byId("search");
  search.addEventListener("input", () => {
    const text = search.value.trim().toLowerCase();
    const hits = text ? nodes.map((n, i) => [n, i]).filter(([n]) => [n.name, n.op, n.path.join("."), ...n.from].some((t) => t.toLowerCase().includes(text))) : [];
    byId("hits").innerHTML = hits.slice(0, 40).map(([n, i]) => `<li><button type="button" data-node="${i}">${escape(n.op)} <span class="mono">${escape(n.name)}</span></button></li>`).join("");
    byId("told").textContent = text ? `${hits.length} found${hits.length > 40 ? ", 40 shown" : ""}` : "";
  });
  const forget = (event) => {
    if (event.key !== "Escape") return;
    search.value = "";
    search.dispatchEvent(new Event("input"));
    search.focus();
  };
  search.addEventListener("keydown", forget);
  byId("hits").addEventListener("keydown", forget);
  byId("hits").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) reveal(Number(button.dataset.node));
  });

  // The error along the depth of the network
  const depth = data.depth.filter((row) => row.error !== null);
  const plot = byId("depth");
  if (plot && depth.length) {
    const low = -9;
    const high = Math.max(0, Math.ceil(Math.log10(most(depth.map((row) => row.error)) || 1)));
    const x = (i) => 52 + (i / Math.max(depth.length - 1, 1)) * 836;
    const y = (error) => 14 + ((high - Math.max(error > 0 ? Math.log10(error) : low, low)) / (high - low)) * 180;
    const lines = [];
    for (let power = low; power <= high; power += 1) {
      const at = 14 + ((high - power) / (high - low)) * 180;
      lines.push(`<line x1="52" x2="888" y1="${at}" y2="${at}" class="grid"/>` + (power % 3 === 0 ? `<text x="46" y="${at + 4}" text-anchor="end">1e${power}</text>` : ""));
    }
    const colours = { equal: "point", "wrong here": "point bad here", inherited: "point bad", departs: "point bad" };
    plot.innerHTML = lines.join("") + `<path class="curve" d="M${depth.map((row, i) => `${x(i).toFixed(1)},${y(row.error).toFixed(1)}`).join("L")}"/>` +
      depth.map((row, i) => `<circle class="${colours[row.status] || "point"}" data-node="${row.node ?? ""}" cx="${x(i).toFixed(1)}" cy="${y(row.error).toFixed(1)}" r="${row.status === "equal" ? 3.5 : 5}"><title>${escape(`${row.name}: ${number(row.error)}, ${row.status}, ${row.source}`)}</title></circle>`).join("");
    plot.addEventListener("click", (event) => {
      const index = event.target.dataset.node;
      if (index) { reveal(Number(index)); svg.scrollIntoView({ block: "center" }); }
    });
  }
  // On paper the graph is whole, and what is folded away is open
  const closed = new Set();
  window.addEventListener("beforeprint", () => svg.setAttribute("viewBox", `0 0 ${whole.width || 100} ${whole.height || 100}`));
  window.addEventListener("afterprint", look);
  window.addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((one) => { closed.add(one); one.open = true; }));
  window.addEventListener("afterprint", () => { closed.forEach((one) => { one.open = false; }); closed.clear(); });

  draw(false);
  const culprit = nodes.findIndex((node) => node.wrong);
  if (culprit >= 0) reveal(culprit);
})();
