// Activations of the image: the strongest channels of a layer, how the value of one unit is computed, and the outputs.

// A colour scale from dark to bright in perceptually even steps, also in grey.
const RAMP = [[13, 8, 46], [84, 15, 109], [160, 42, 99], [217, 78, 55], [249, 142, 9], [252, 255, 164]];

const number = (value) => (value === null ? '' : String(significant(value)));

function colourAt(share) {
  const place = share * (RAMP.length - 1);
  const [low, high] = [RAMP[Math.floor(place)], RAMP[Math.ceil(place)]];
  return low.map((part, at) => part + (high[at] - part) * (place % 1));
}

function canvasOf(channel) {
  const [height, width] = channel.size;
  const canvas = el('canvas', { width, height });
  const context = canvas.getContext('2d');
  const pixels = context.createImageData(width, height);
  const steps = atob(channel.map);
  for (let at = 0; at < steps.length; at += 1) pixels.data.set([...colourAt(steps.charCodeAt(at) / 255), 255], 4 * at);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

let mapped = null;

// Show the maps of the chosen layer. To point at another layer does not change them.
function showMaps() {
  const key = `${state.model}/${state.layer}/${state.image}`;
  if (state.layer === null || key === mapped) return;
  mapped = key;
  const layer = imageMaps()?.layers[state.layer];
  find('#product').replaceChildren();
  find('#maps-hint').textContent = model().maps?.how ?? '';
  if (!layer) find('#maps').replaceChildren(el('p', { class: 'quiet' }, `This page has no feature maps of ${nameOf(layerAt(state.layer))}.`));
  else if (layer.units) find('#maps').replaceChildren(unitsOf(layer.units));
  else find('#maps').replaceChildren(...layer.channels.map(mapOf));
  showSheet();
  showWeights();
}

const imageMaps = () => model().maps?.images[state.image];

function mapOf(channel) {
  const button = el('button', { type: 'button', 'aria-label': `Channel ${channel.channel}: how its strongest unit comes by ${number(channel.value)}` }, canvasOf(channel), el('span', {}, `channel ${channel.channel}`), el('span', { class: 'quiet' }, `mean ${number(channel.mean)}`));
  button.addEventListener('click', () => {
    findAll('#maps button').forEach((other) => other.removeAttribute('aria-current'));
    button.setAttribute('aria-current', 'true');
    chooseUnit(channel.unit);
    showProduct(channel);
    markChannel(channel.channel);
  });
  return button;
}

function showProduct(channel) {
  const layer = layerAt(state.layer);
  const head = el('h3', {}, `Unit ${channel.unit.join(', ')} of channel ${channel.channel} of ${nameOf(layer)} is `, el('data', { value: channel.value }, number(channel.value)));
  const { product } = channel;
  if (product?.terms) find('#product').replaceChildren(head, ...termsOf(product, channel));
  else if (product?.values) find('#product').replaceChildren(head, el('p', {}, layer.op.includes('Max') ? 'It is the largest of' : layer.op.includes('Avg') ? 'It is the mean of' : 'It is computed from'), numbers(product.values, 'values'));
  else find('#product').replaceChildren(head);
}

function termsOf(product, channel) {
  const rest = product.inputs - product.terms.length;
  const terms = product.terms.map((term) => el('div', { class: 'term-row' },
    el('div', {}, el('span', { class: 'quiet' }, `input channel ${term.channel}`), numbers(term.values, 'values')), el('span', { class: 'sign' }, '·'),
    el('div', {}, el('span', { class: 'quiet' }, 'weights'), numbers(term.weights, 'weights')), el('span', { class: 'sign' }, '='), el('b', {}, number(term.sum))));
  const sum = [...product.terms.map((term) => number(term.sum)), ...(rest ? [`${number(product.others)} from ${plural(rest, 'other channel')}`] : []), ...(product.bias === null ? [] : [`${number(product.bias)} bias`])];
  return [...terms, el('p', { id: 'sum' }, `${sum.join(' + ').replaceAll('+ -', '− ')} = ${number(channel.value)}`)];
}

function numbers(rows, what) {
  const most = Math.max(...rows.flat().map((value) => Math.abs(value ?? 0))) || 1;
  return el('table', { class: 'numbers', 'aria-label': what }, el('tbody', {}, ...rows.map((row) => el('tr', {}, ...row.map((value) => {
    const cell = el('td', { class: value === null ? 'outside' : value < 0 ? 'minus' : 'plus' }, number(value));
    cell.style.setProperty('--strength', `${Math.round(60 * Math.abs(value ?? 0) / most)}%`);
    return cell;
  })))));
}

// The strongest units; of the output also as probabilities, by the soft-max of all units.
function unitsOf(units) {
  const isOutput = state.layer === model().layers.length - 1;
  const names = isOutput ? model().maps.classes : null;
  const { logSumExp } = imageMaps();
  const shares = isOutput && logSumExp !== null ? units.map(([, value]) => Math.exp(value - logSumExp)) : null;
  const most = Math.max(...units.map(([, value]) => Math.abs(value))) || 1;
  const bar = (part) => {
    const element = el('span', { class: 'bar fc', 'aria-hidden': 'true' });
    element.style.setProperty('--share', `${Math.max(0, 100 * part)}%`);
    return element;
  };
  const rows = units.map(([unit, value], at) => el('tr', {},
    el('th', { scope: 'row' }, names ? `${unit}: ${names[unit]}` : String(unit)),
    el('td', { class: 'number', 'data-value': value }, shares ? null : bar(value / most), el('span', {}, number(value))),
    shares ? el('td', { class: 'number', 'data-value': shares[at] }, bar(shares[at]), el('span', {}, `${number(100 * shares[at])}%`)) : null));
  const head = ['Strongest units', shares ? 'logit' : 'value', shares ? 'probability' : null].filter(Boolean);
  const whole = el('table', { class: 'small' }, el('thead', {}, el('tr', {}, ...head.map((title, at) => el('th', { scope: 'col', class: at ? 'number' : null }, title)))), el('tbody', {}, ...rows));
  return el('div', { class: 'units' }, whole, tableButton('the strongest units', 'units', () => tableRows(whole)));
}

function startMaps() {
  if (!find('#maps')) return;
  on('model', showMaps);
  on('layer', showMaps);
  on('image', showMaps);
  startChannels();
}
