// Four charts over the layers; a mark in all of them shows the chosen layer.

const CHARTS = [
  { key: 'params', title: 'Parameters', unit: 'parameters', value: (layer) => layer.params, text: count, tick: compact },
  { key: 'macs', title: 'MACs', unit: 'multiply-accumulates', value: (layer) => layer.macs, text: (value) => shortCount(value), tick: compact },
  { key: 'bytes', title: 'Activation memory', unit: 'bytes of the output, batch 1', value: (layer) => layer.bytes, text: bytesText, tick: compactBytes, bytes: true },
  { key: 'field', title: 'Receptive field', unit: 'pixels of the input, vertically', value: (layer, place) => fieldSize(place)?.[0] ?? null, text: (value) => `${count(value)} px`, tick: compact, line: true },
];

const HEIGHT = 100;
const CHART_HEIGHT = 190;
const HEADROOM = 1.05; // the axis reaches a little beyond the largest value

let charts = [];

function fillCharts() {
  const layers = model().layers;
  const logarithmic = find('#logarithmic').checked;
  charts = CHARTS.map((chart) => {
    const values = layers.map((layer, place) => chart.value(layer, place));
    const most = HEADROOM * Math.max(1, ...values.map((value) => value ?? 0));
    const scaled = (value) => HEIGHT * (logarithmic ? Math.log1p(value) / Math.log1p(most) : value / most);
    const seen = svg('rect', { class: 'seen', y: 0, width: markWidth(), height: HEIGHT });
    const chosen = svg('rect', { class: 'chosen', y: 0, width: markWidth(), height: HEIGHT });
    const readout = el('output', {});
    const plot = el('div', { class: 'plot', tabindex: 0, role: 'slider', 'aria-label': `${chart.title} by layer`, 'aria-valuemin': 1, 'aria-valuemax': layers.length, 'data-chart': chart.key });
    const content = [chosen, seen, ...bars(chart, layers, values, scaled)];
    listenTo(plot, layers.length);
    const box = el('div', { class: 'chart' }, el('h3', {}, chart.title, ' ', readout), plot, pictureButtons(chart.title, chart.key, () => find('svg', plot)));
    return { chart, values, most, scaled, logarithmic, content, seen, chosen, readout, plot, box };
  });
  find('#charts').replaceChildren(...charts.map(({ box }) => box));
  drawCharts();
}

// Draw the charts at the width that they have on the page.
function drawCharts() {
  const layers = model().layers;
  for (const { chart, values, most, scaled, logarithmic, content, plot } of charts) {
    const side = chart.line ? model().fields.sides[0] : null;
    const limit = side && side <= most ? [svg('path', { class: 'limit', d: `M0 ${HEIGHT - scaled(side)}H${layers.length}`, 'vector-effect': 'non-scaling-stroke' })] : [];
    const kinds = Object.entries(KINDS).filter(([kind]) => layers.some((layer, place) => layer.kind === kind && values[place]));
    plot.replaceChildren(framed({
      width: Math.max(240, plot.clientWidth), height: CHART_HEIGHT, columns: layers.length, unit: chart.unit, scaled, text: chart.tick,
      ticks: ticksOf(most, { bytes: chart.bytes, logarithmic }), groups: layers.map(({ stage }) => stage),
      legend: chart.line ? (limit.length ? [['limit', `side of the input, ${side} px`]] : []) : kinds,
    }, [...content, ...limit]));
  }
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

function listenTo(plot, length) {
  const placeAt = (event) => columnAt(plot, event, length);
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
  onWidth(find('#charts'), drawCharts);
}
