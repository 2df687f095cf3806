// The modules as a picture: a row for each layer in execution order, inside its modules, which collapse and expand.
// Lines at the left lead to a layer from those that it reads, where these are not the row above.

const ROW = { height: 24, gap: 6, indent: 14, lane: 7, mostLanes: 16, mostWidth: 760 };
const MOST_OPEN = 60; // rows that are open at first

// For each model its tree of modules, and the modules that are open.
const outlines = new Map();

function outline() {
  if (!outlines.has(state.model)) {
    const root = treeOf(model().layers);
    outlines.set(state.model, { root, open: firstOpen(root) });
  }
  return outlines.get(state.model);
}

// The modules around a layer: those of its path, or its stage where the literature names the layer.
const modulesOf = (layer) => (layer.label ? [layer.stage].filter(Boolean) : layer.name.split('.').slice(0, -1));

// A module is a run of layers: one that is left and entered again is there twice.
function treeOf(layers) {
  const root = { name: '', id: '', parent: null, parts: [], first: 0, last: layers.length - 1 };
  layers.forEach((layer, place) => {
    let group = root;
    for (const name of modulesOf(layer)) {
      const last = group.parts[group.parts.length - 1];
      if (last?.parts && last.name === name) group = last;
      else {
        const inner = { name, id: `${group.id}/${name}@${place}`, parent: group, parts: [], first: place, last: place };
        group.parts.push(inner);
        group = inner;
      }
    }
    group.parts.push({ place, parent: group });
    for (let around = group; around; around = around.parent) around.last = place;
  });
  return root;
}

const groupsIn = (group) => group.parts.filter((part) => part.parts).flatMap((part) => [part, ...groupsIn(part)]);

// Open one level after another, while there are few rows.
function firstOpen(root) {
  const open = new Set();
  let level = root.parts.filter((part) => part.parts);
  let rows = root.parts.length;
  while (level.length) {
    const more = level.reduce((total, group) => total + group.parts.length, 0);
    if (rows + more > MOST_OPEN) break;
    level.forEach((group) => open.add(group.id));
    rows += more;
    level = level.flatMap((group) => group.parts.filter((part) => part.parts));
  }
  return open;
}

// The rows in sight from the top, each with its depth; `at` has the row that shows each layer.
function rowsInSight() {
  const { root, open } = outline();
  const rows = [{ input: true, depth: 0 }];
  const shownAt = new Array(model().layers.length);
  const add = (group, depth) => group.parts.forEach((part) => {
    if (part.parts) {
      rows.push({ group: part, depth });
      if (open.has(part.id)) return add(part, depth + 1);
      for (let place = part.first; place <= part.last; place += 1) shownAt[place] = rows.length - 1;
    } else {
      rows.push({ place: part.place, depth });
      shownAt[part.place] = rows.length - 1;
    }
    return undefined;
  });
  add(root, 0);
  return { rows, shownAt };
}

// The connections between rows, each once: from the row above, or in a lane past others, the shortest innermost.
function connections({ rows, shownAt }) {
  const isHead = (row) => rows[row].group && outline().open.has(rows[row].group.id);
  const follows = (from, to) => { for (let row = from + 1; row < to; row += 1) if (!isHead(row)) return false; return true; };
  const pairs = new Set();
  model().layers.forEach((layer, place) => layer.inputs.forEach((input) => {
    const [from, to] = [input < 0 ? 0 : shownAt[input], shownAt[place]];
    if (from < to) pairs.add(`${from} ${to}`);
  }));
  const edges = [...pairs].map((text) => text.split(' ').map(Number)).map(([from, to]) => ({ from, to, next: follows(from, to) }));
  const lanes = [];
  const passing = edges.filter(({ next }) => !next).sort((a, b) => (a.to - a.from) - (b.to - b.from) || a.from - b.from);
  for (const edge of passing) {
    let lane = lanes.findIndex((taken) => taken.every(({ from, to }) => edge.to <= from || edge.from >= to));
    if (lane < 0) lane = Math.min(lanes.length, ROW.mostLanes - 1);
    (lanes[lane] ??= []).push(edge);
    edge.lane = lane;
  }
  return { edges, lanes: lanes.length };
}

function drawModules(holder, room) {
  const sight = rowsInSight();
  const { edges, lanes } = connections(sight);
  const left = 6 + lanes * ROW.lane + (lanes ? 6 : 0);
  const width = clamp(room - 2, 280, Math.max(ROW.mostWidth, left + 400));
  const topOf = (row) => 6 + row * (ROW.height + ROW.gap);
  const height = topOf(sight.rows.length) + 2;
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Modules in execution order', 'data-zoom': 1, class: 'modules' });
  const xOf = (row) => left + sight.rows[row].depth * ROW.indent;
  drawing.append(svg('path', { class: 'wire', d: edges.filter(({ next }) => next).map(({ from, to }) => gapLines(from, to, xOf, topOf)).join('') }));
  edges.filter(({ next }) => !next).forEach((edge) => drawing.append(laneLine(edge, left, xOf, topOf)));
  sight.rows.forEach((row, at) => drawing.append(drawRow(row, xOf(at), topOf(at), width - xOf(at) - 4)));
  holder.replaceChildren(drawing);
}

// A line in each gap from one row to the next: through the heads of the modules that a layer is in.
function gapLines(from, to, xOf, topOf) {
  let path = '';
  for (let row = from; row < to; row += 1) path += `M${Math.max(xOf(row), xOf(row + 1)) + 10} ${topOf(row) + ROW.height}v${ROW.gap}`;
  return path;
}

function laneLine({ from, to, lane }, left, xOf, topOf) {
  const x = left - 8 - lane * ROW.lane;
  const [start, end] = [topOf(from) + ROW.height - 6, topOf(to) + 6];
  return svg('path', { class: 'wire lane', d: `M${xOf(from)} ${start}H${x}V${end}H${xOf(to) - 1}m-4 -3l4 3l-4 3` });
}

function drawRow(row, x, y, width) {
  if (row.input) return svg('g', { class: 'row input' }, svg('rect', { x, y, width, height: ROW.height, rx: 4 }), rowText(x + 10, y, 'input', 'name'), rowText(x + width - 8, y, times(model().input), 'end'));
  const group = row.group;
  const open = group && outline().open.has(group.id);
  const layer = layerAt(group ? group.last : row.place);
  const size = group ? group.last - group.first + 1 : 1;
  const name = group ? `${open ? '▾' : '▸'} ${group.name}` : layer.label || layer.name.split('.').pop();
  const about = group ? groupNote(group, size) : layerNote(layer, width);
  const link = svg('a', group
    ? { role: 'button', 'aria-expanded': String(open), 'data-group': group.id, tabindex: -1 }
    : { href: `#${encodeURIComponent(layer.key)}`, 'data-place': row.place, tabindex: -1 });
  const shape = open ? '' : times(layer.out);
  const room = width - 24 - textWidth(shape);
  const title = cutText(name, 0.6 * room, true);
  const taken = textWidth(title, true);
  link.append(svg('g', { class: `row ${group ? 'group' : layer.kind}${open ? ' open' : ''}` },
    svg('title', {}, group ? `${layerAt(group.first).name} to ${layer.name}` : layer.name),
    svg('rect', { x, y, width, height: ROW.height, rx: 4 }), group ? null : svg('rect', { class: 'edge', x, y, width: 4, height: ROW.height }),
    rowText(x + 10, y, title, 'name'), rowText(x + 20 + taken, y, cutText(about, room - taken - 16), 'about'), rowText(x + width - 8, y, shape, 'end')));
  return link;
}

const rowText = (x, y, text, kind) => svg('text', { class: kind, x, y: y + ROW.height / 2 + 4 }, text);

// The op with its sizes; where there is little room, the sizes alone.
function layerNote({ op, spec }, room) {
  if (!spec || spec.toLowerCase() === op.toLowerCase()) return op;
  return room < 420 || spec.toLowerCase().startsWith(op.toLowerCase()) ? spec : `${op} ${spec}`;
}

function groupNote(group, size) {
  const own = model().layers.slice(group.first, group.last + 1);
  const params = own.reduce((total, layer) => (layer.params === null ? NaN : total + layer.params), 0);
  return `${plural(size, 'layer')}${params ? `, ${shortCount(params)} parameters` : ''}`;
}

// The row of each layer, by its key or that of the collapsed module around it.
function moduleParts() {
  const { rows, shownAt } = rowsInSight();
  return shownAt.map((row, place) => (rows[row].group ? rows[row].group.id : layerAt(place).key));
}

function toggleModule(id) {
  const { open } = outline();
  if (open.has(id)) open.delete(id);
  else open.add(id);
}

function foldAll(closed) {
  const { root, open } = outline();
  open.clear();
  if (!closed) groupsIn(root).forEach((group) => open.add(group.id));
}

// Open the modules around a layer; tells whether one was closed.
function openAround(place) {
  const { root, open } = outline();
  const before = open.size;
  groupsIn(root).filter(({ first, last }) => first <= place && place <= last).forEach((group) => open.add(group.id));
  return open.size > before;
}
