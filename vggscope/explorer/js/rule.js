// The rule: a window slides over its input, and (W-K+2P)/S+1 counts its positions.

const slide = { at: 0, timer: null };

const LENS = 11;

// The window of the chosen layer on two axes: one row for a layer with one axis, the last two of three axes.
function windowOf(place) {
  const own = layerAt(place).window;
  if (!own) return null;
  const two = (sides, one) => (sides.length === 1 ? [one, sides[0]] : sides.slice(-2));
  return {
    size: two(own.size, 1), kernel: two(own.kernel, 1), stride: two(own.stride, 1), padding: two(own.padding, 0),
    dilation: two(own.dilation, 1), out: two(own.out, 1), groups: own.groups, ceil: own.ceil,
  };
}

const spanOfWindow = (win, axis) => win.dilation[axis] * (win.kernel[axis] - 1) + 1;

// The end of the padded input along an axis; with ceil mode the last window may reach beyond it.
const reachOf = (win, axis) => Math.max(win.size[axis] + win.padding[axis], (win.out[axis] - 1) * win.stride[axis] - win.padding[axis] + spanOfWindow(win, axis));

const placesOf = (win) => [Math.floor(slide.at / win.out[1]), slide.at % win.out[1]];

const startsOf = (win) => placesOf(win).map((at, axis) => at * win.stride[axis] - win.padding[axis]);

function showRule() {
  stopSliding();
  slide.at = 0;
  const place = shown();
  const win = windowOf(place);
  find('#rule-body').hidden = !win;
  find('#rule-none').hidden = Boolean(win);
  if (!win) return showNoRule(place);
  fillFormula(win);
  const [row, column] = [find('#slide-row'), find('#slide-column')];
  [row.max, column.max] = win.out.map((side) => side - 1);
  find('#slide-out-caption').textContent = `Output: ${region(win.out)}`;
  find('#slide-in-caption').textContent = `Input: ${region(win.size)}${Math.max(...win.padding) ? `, padded by ${pair(win.padding)}` : ''}`;
  showSlide();
}

function showNoRule(place) {
  const next = model().layers.map((layer, at) => [layer.window ? Math.abs(at - place) : Infinity, at]).sort((a, b) => a[0] - b[0])[0];
  const text = `${nameOf(layerAt(place))} slides no window. `;
  if (next[0] === Infinity) return find('#rule-none').replaceChildren(text);
  const button = el('button', { type: 'button' }, `Show ${nameOf(layerAt(next[1]))}`);
  button.addEventListener('click', () => { select(next[1]); find('#slide-in').focus(); });
  find('#rule-none').replaceChildren(text, button);
}

function fillFormula(win) {
  const sides = [0, 1].filter((axis) => axis === 1 || ['size', 'kernel', 'stride', 'padding', 'dilation'].some((name) => win[name][0] !== win[name][1]));
  const lines = sides.reverse().map((axis) => {
    const [w, k, p, s] = [win.size[axis], win.kernel[axis], win.padding[axis], win.stride[axis]];
    const exact = (w - spanOfWindow(win, axis) + 2 * p) / s + 1;
    const kernel = win.dilation[axis] === 1 ? [term('k', k)] : ['(', String(win.dilation[axis]), '·(', term('k', k), ' − 1) + 1)'];
    const rounded = exact === win.out[axis] ? '' : `${fraction(exact)}, rounded ${win.ceil ? 'up' : 'down'}: `;
    return el('span', { class: 'line' }, '(', term('w', w), ' − ', ...kernel, ' + 2·', term('p', p), ') / ', term('s', s), ' + 1 = ', rounded, term('o', win.out[axis]), sides.length > 1 ? (axis ? ' wide' : ' high') : '');
  });
  find('#formula').replaceChildren(el('span', { class: 'line letters' }, '(', term('w', 'W'), ' − ', term('k', 'K'), ' + 2', term('p', 'P'), ') / ', term('s', 'S'), ' + 1'), ...lines);
}

const term = (kind, value) => el('b', { class: `term ${kind}` }, String(value));

function showSlide() {
  const win = windowOf(shown());
  if (!win) return;
  drawInput(win);
  drawLens(win);
  drawOutput(win);
  const places = placesOf(win);
  [find('#slide-row').value, find('#slide-column').value] = places;
  find('#slide-text').textContent = slideText(win, places);
  find('#slide-in').setAttribute('aria-label', `Window ${slide.at + 1} of ${count(product(win.out))}, at unit ${places.join(', ')}; arrow keys move it`);
}

function slideText(win, places) {
  const layer = layerAt(shown());
  const starts = startsOf(win);
  const range = (axis) => `${starts[axis]} to ${starts[axis] + spanOfWindow(win, axis) - 1}`;
  const inside = starts.map((start, axis) => [...Array(win.kernel[axis]).keys()].filter((tap) => {
    const at = start + tap * win.dilation[axis];
    return at >= 0 && at < win.size[axis];
  }).length);
  const padded = product(win.kernel) - product(inside);
  const sums = layer.kind === 'pool' ? '' : ` Each output channel sums ${region(win.kernel)} × ${count(layer.in[0] / win.groups)} = ${count(product(win.kernel) * layer.in[0] / win.groups)} products.`;
  return `Unit ${places.join(', ')} reads rows ${range(0)} and columns ${range(1)}; ${padded} of its ${count(product(win.kernel))} places are padding.${sums}`;
}

function drawInput(win) {
  const [top, left] = win.padding;
  const [height, width] = [0, 1].map((axis) => reachOf(win, axis) + win.padding[axis]);
  const margin = Math.max(height, width) * 0.02;
  const [row, column] = startsOf(win);
  const drawing = svg('svg', { viewBox: `${-left - margin} ${-top - margin} ${width + 2 * margin} ${height + 2 * margin}`, 'aria-hidden': 'true' });
  drawing.append(...padded(find('#slide-in'), { x: -left, y: -top, width, height }, height));
  const first = layerAt(shown()).inputs[0] === -1 && win.size.join() === imageSides().join();
  drawing.append(first ? picture() : svg('rect', { class: `ground ${layerAt(shown()).kind}`, width: win.size[1], height: win.size[0] }));
  const rect = { x: column, y: row, width: spanOfWindow(win, 1), height: spanOfWindow(win, 0), 'vector-effect': 'non-scaling-stroke' };
  drawing.append(svg('rect', { class: 'box-back', ...rect }), svg('rect', { class: 'box', id: 'window', ...rect }));
  find('#slide-in').replaceChildren(drawing);
}

// The first cell that the lens shows along an axis, and the number of cells.
function lensAlong(win, axis) {
  const span = spanOfWindow(win, axis);
  const all = reachOf(win, axis) + win.padding[axis];
  const cells = Math.min(all, Math.max(LENS, span + 4));
  const start = startsOf(win)[axis] - Math.floor((cells - span) / 2);
  return [clamp(start, -win.padding[axis], reachOf(win, axis) - cells), cells];
}

function drawLens(win) {
  const [[row, rows], [column, columns]] = [0, 1].map((axis) => lensAlong(win, axis));
  const starts = startsOf(win);
  const drawing = svg('svg', { viewBox: `${column - 1} ${row - 1} ${columns + 1.1} ${rows + 1.1}`, 'aria-hidden': 'true' });
  drawing.append(...padded(find('#slide-lens'), { x: column, y: row, width: columns, height: rows }, rows));
  const [y, x] = [Math.max(row, 0), Math.max(column, 0)];
  drawing.append(svg('rect', { class: `ground ${layerAt(shown()).kind}`, x, y, width: Math.min(column + columns, win.size[1]) - x, height: Math.min(row + rows, win.size[0]) - y }));
  for (let i = 0; i < win.kernel[0]; i += 1) {
    for (let j = 0; j < win.kernel[1]; j += 1) drawing.append(svg('rect', { class: 'tap', x: starts[1] + j * win.dilation[1], y: starts[0] + i * win.dilation[0], width: 1, height: 1 }));
  }
  drawing.append(svg('g', { transform: `translate(${column} ${row})` }, svg('path', { class: 'grid', 'vector-effect': 'non-scaling-stroke', d: gridPath(rows, columns) })));
  drawing.append(svg('rect', { class: 'box', x: starts[1], y: starts[0], width: spanOfWindow(win, 1), height: spanOfWindow(win, 0), 'vector-effect': 'non-scaling-stroke' }));
  const every = Math.ceil(Math.max(rows, columns) / 16);
  const label = (at, x0, y0) => svg('text', { class: 'index', x: x0, y: y0, 'font-size': 0.42 * every }, String(at));
  for (let j = column; j < column + columns; j += every) drawing.append(label(j, j + 0.5, row - 0.3));
  for (let i = row; i < row + rows; i += every) drawing.append(label(i, column - 0.5, i + 0.65));
  find('#slide-lens').replaceChildren(drawing);
}

function drawOutput(win) {
  const [rows, columns] = win.out;
  const [row, column] = placesOf(win);
  const margin = Math.max(rows, columns) * 0.02;
  const drawing = svg('svg', { viewBox: `${-margin} ${-margin} ${columns + 2 * margin} ${rows + 2 * margin}`, 'aria-hidden': 'true' });
  drawing.append(svg('rect', { class: 'ground', width: columns, height: rows }));
  drawing.append(svg('path', { class: 'done', d: `M0 0H${columns}V${row}H${column + 1}V${row + 1}H0z` }));
  if (hasGrid(find('#slide-out'), rows, columns)) drawing.append(svg('path', { class: 'grid', 'vector-effect': 'non-scaling-stroke', d: gridPath(rows, columns) }));
  const size = Math.max(1, Math.max(rows, columns) / 48);
  drawing.append(svg('rect', { class: 'unit', x: column + 0.5 - size / 2, y: row + 0.5 - size / 2, width: size, height: size }));
  find('#slide-out').replaceChildren(drawing);
}

function slideBy(rows, columns) {
  const win = windowOf(shown());
  if (!win) return;
  const [row, column] = placesOf(win);
  slideTo(clamp(row + rows, 0, win.out[0] - 1), clamp(column + columns, 0, win.out[1] - 1));
}

function slideTo(row, column) {
  const win = windowOf(shown());
  slide.at = clamp(row, 0, win.out[0] - 1) * win.out[1] + clamp(column, 0, win.out[1] - 1);
  showSlide();
}

// Move to the next position, row by row, and from the last one to the first.
function slideOn(by) {
  const win = windowOf(shown());
  if (!win) return;
  const all = product(win.out);
  slide.at = (slide.at + by + all) % all;
  showSlide();
}

function stopSliding() {
  clearInterval(slide.timer);
  slide.timer = null;
  find('#slide-play').setAttribute('aria-pressed', 'false');
  find('#slide-play').textContent = 'Play';
  find('#slide-text').setAttribute('aria-live', 'polite');
}

function play() {
  if (slide.timer !== null) return stopSliding();
  const win = windowOf(shown());
  slide.timer = setInterval(() => slideOn(1), clamp(6000 / win.out[1], 70, 450));
  find('#slide-play').setAttribute('aria-pressed', 'true');
  find('#slide-play').textContent = 'Pause';
  // While it plays, a screen reader does not announce each step.
  find('#slide-text').setAttribute('aria-live', 'off');
}

function startRule() {
  find('#slide-back').addEventListener('click', () => { stopSliding(); slideOn(-1); });
  find('#slide-on').addEventListener('click', () => { stopSliding(); slideOn(1); });
  find('#slide-play').addEventListener('click', play);
  for (const id of ['#slide-row', '#slide-column']) {
    find(id).addEventListener('input', () => slideTo(Number(find('#slide-row').value), Number(find('#slide-column').value)));
  }
  find('#slide-in').addEventListener('keydown', (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [-1e6, -1e6], End: [1e6, 1e6] }[event.key];
    if (!by) return;
    event.preventDefault();
    stopSliding();
    slideBy(...by);
  });
  find('#slide-out').addEventListener('pointerdown', (event) => {
    const point = pointIn(find('#slide-out'), event);
    if (point) { stopSliding(); slideTo(...point.map(Math.floor)); }
  });
  on('layer', showRule);
}
