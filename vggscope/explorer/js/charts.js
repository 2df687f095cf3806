// Four charts over the layers; a mark in all of them shows the chosen layer.

const CHARTS = [
  { key: 'params', title: 'Parameters', value: (layer) => layer.params, text: count },
  { key: 'macs', title: 'MACs', value: (layer) => layer.macs, text: (value) => shortCount(value) },
  { key: 'bytes', title: 'Activation memory, batch 1', value: (layer) => layer.bytes, text: bytesText },
  { key: 'field', title: 'Receptive field', value: (layer, place) => fieldSize(place)?.[0] ?? null, text: (value) => `${count(value)} px`, line: true },
];

const HEIGHT = 100;

let charts = [];

function fillCharts() {
  const layers = model().layers;
  const logarithmic = find('#logarithmic').checked;
  charts = CHARTS.map((chart) => {
    const values = layers.map((layer, place) => chart.value(layer, place));
    const most = Math.max(1, ...values.map((value) => value ?? 0));
    const scaled = (value) => HEIGHT * (logarithmic ? Math.log1p(value) / Math.log1p(most) : value / most);
    const seen = svg('rect', { class: 'seen', y: 0, width: markWidth(), height: HEIGHT });
    const chosen = svg('rect', { class: 'chosen', y: 0, width: markWidth(), height: HEIGHT });
    const drawing = svg('svg', { viewBox: `0 0 ${layers.length} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, chosen, seen, ...bars(chart, layers, values, scaled));
    if (chart.key === 'field') drawing.append(inputLine(most, scaled));
    const readout = el('output', {});
    const plot = el('div', { class: 'plot', tabindex: 0, role: 'slider', 'aria-label': `${chart.title} by layer`, 'aria-valuemin': 1, 'aria-valuemax': layers.length, 'data-chart': chart.key }, drawing);
    listenTo(plot, layers.length);
    const box = el('div', { class: 'chart' }, el('h3', {}, chart.title, ' ', readout), plot, stageBand(layers));
    return { chart, values, seen, chosen, readout, plot, box };
  });
  find('#charts').replaceChildren(...charts.map(({ box }) => box));
}

// The width of the mark: it is visible however many layers there are.
const markWidth = () => Math.max(1, model().layers.length / 120);

function bars(chart, layers, values, scaled) {
  if (chart.line) {
    const path = values.map((value, place) => (value === null ? '' : `M${place} ${HEIGHT}V${HEIGHT - scaled(value)}h1V${HEIGHT}z`)).join('');
    return [svg('path', { class: 'area', d: path })];
  }
  // Thin bars have no gaps: gaps as wide as the bars would only make them pale.
  const gap = layers.length > 120 ? 0 : 0.08;
  const kinds = [...new Set(layers.map((layer) => layer.kind))];
  return kinds.map((kind) => svg('path', {
    class: `fill ${kind}`,
    d: layers.map((layer, place) => (layer.kind === kind && values[place] ? `M${place + gap} ${HEIGHT}V${HEIGHT - Math.max(0.8, scaled(values[place]))}h${1 - 2 * gap}V${HEIGHT}z` : '')).join(''),
  }));
}

// The line at which the receptive field is as large as the image.
function inputLine(most, scaled) {
  const side = model().fields.sides[0];
  const y = side && side <= most ? HEIGHT - scaled(side) : -10;
  return svg('path', { class: 'limit', d: `M0 ${y}H${model().layers.length}`, 'vector-effect': 'non-scaling-stroke' });
}

function stageBand(layers) {
  const groups = [];
  layers.forEach((layer) => {
    if (groups.length && groups[groups.length - 1][0] === layer.stage) groups[groups.length - 1][1] += 1;
    else groups.push([layer.stage, 1]);
  });
  return el('div', { class: 'band', 'aria-hidden': 'true' }, ...groups.map(([stage, size]) => {
    const part = el('span', { title: stage }, size < 0.07 * layers.length ? '' : stage);
    part.style.flexGrow = size;
    return part;
  }));
}

function listenTo(plot, length) {
  const placeAt = (event) => {
    const box = plot.getBoundingClientRect();
    return clamp(Math.floor((event.clientX - box.left) / box.width * length), 0, length - 1);
  };
  plot.addEventListener('pointermove', (event) => peek(placeAt(event)));
  plot.addEventListener('pointerleave', () => peek(null));
  plot.addEventListener('click', (event) => select(placeAt(event)));
  plot.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -length, End: length }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
}

function markCharts() {
  for (const { chart, values, seen, chosen, readout, plot } of charts) {
    const value = values[shown()] === null ? UNKNOWN : chart.text(values[shown()]);
    const name = nameOf(layerAt(shown()));
    seen.setAttribute('x', shown() + (1 - markWidth()) / 2);
    chosen.setAttribute('x', state.layer + (1 - markWidth()) / 2);
    readout.textContent = `${value}, ${name}`;
    plot.setAttribute('aria-valuenow', state.layer + 1);
    plot.setAttribute('aria-valuetext', `${name}: ${value}`);
  }
}

function startCharts() {
  find('#logarithmic').addEventListener('change', () => { fillCharts(); markCharts(); });
  on('model', fillCharts);
  on('layer', markCharts);
  fillCharts();
}
