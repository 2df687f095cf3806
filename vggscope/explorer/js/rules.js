// The rules of a sequential network, from its layers alone: shapes, parameters, MACs, receptive fields and memory. They
// are those of Python's ops and analyses; the tests compare the two. Shapes have a batch of one.

const kernelText = (sides) => sides.join('x');
const shapeText = (shape) => (shape.slice(1).join('x') || shape.join('x') || 'scalar');

class RuleBroken extends Error {}

// The output's side for one axis of a window; torch drops a last window that would start after the input.
function windowSide(size, span, padding, stride, ceil) {
  const room = size - span + 2 * padding;
  if (!ceil) return Math.floor(room / stride) + 1;
  const result = Math.ceil(room / stride) + 1;
  return (result - 1) * stride >= size + padding ? result - 1 : result;
}

const spansOf = (layer) => layer.kernel_size.map((size, axis) => layer.dilation[axis] * (size - 1) + 1);

function windowSize(layer, size) {
  const spans = spansOf(layer);
  if (layer.stride.some((step) => step < 1)) throw new RuleBroken(`a window cannot move by a stride of ${kernelText(layer.stride)}`);
  size.forEach((have, axis) => {
    const padding = layer.padding[axis];
    if (have + 2 * padding >= spans[axis]) return;
    throw new RuleBroken(`a window of ${kernelText(spans)} does not fit its input of ${kernelText(size)}${padding ? `, padded by ${padding} on each side` : ''}`);
  });
  return size.map((have, axis) => windowSide(have, spans[axis], layer.padding[axis], layer.stride[axis], layer.ceil));
}

// The layer with the width that fits its input, as somebody who edits the model sets it.
function fittedLayer(layer, shape) {
  if (layer.form === 'conv' && layer.groups === 1) return { ...layer, in_channels: shape[1] };
  if (layer.form === 'fc') return { ...layer, in_features: shape[shape.length - 1] };
  return layer.form === 'each' && layer.features !== null ? { ...layer, features: shape[1] } : layer;
}

function expectChannels(expected, shape) {
  if (shape.length !== 4) throw new RuleBroken(`a tensor of 4 dimensions is expected, this one has ${shape.length}: ${shapeText(shape)}`);
  if (shape[1] !== expected) throw new RuleBroken(`${count(expected)} channels are expected, the input has ${count(shape[1])}: ${shapeText(shape)}`);
}

const SHAPES = {
  conv(layer, shape) {
    expectChannels(layer.in_channels, shape);
    return [shape[0], layer.out_channels, ...windowSize(layer, shape.slice(2))];
  },
  pool(layer, shape) {
    if (shape.length < 3) throw new RuleBroken(`pooling needs channels, height and width, the input is ${shapeText(shape)}`);
    return [...shape.slice(0, -2), ...windowSize(layer, shape.slice(-2))];
  },
  adaptive(layer, shape) {
    if (shape.length < 3) throw new RuleBroken(`pooling needs channels, height and width, the input is ${shapeText(shape)}`);
    return [...shape.slice(0, -2), ...layer.output_size.map((want, axis) => want ?? shape[shape.length - 2 + axis])];
  },
  fc(layer, shape) {
    const have = shape[shape.length - 1];
    if (have === layer.in_features) return [...shape.slice(0, -1), layer.out_features];
    throw new RuleBroken(`${count(layer.in_features)} features are expected, the input has ${shape.length > 2 ? `${count(have)}: ${shapeText(shape)}` : count(have)}`);
  },
  flatten: (_, shape) => [shape[0], product(shape.slice(1))],
  each(layer, shape) {
    if (layer.features !== null) expectChannels(layer.features, shape);
    return shape;
  },
};

// The numbers of values in each parameter.
function parametersOf(layer) {
  if (layer.form === 'conv') {
    const weight = layer.out_channels * Math.floor(layer.in_channels / layer.groups) * product(layer.kernel_size);
    return layer.bias ? [weight, layer.out_channels] : [weight];
  }
  if (layer.form === 'fc') return layer.bias ? [layer.out_features * layer.in_features, layer.out_features] : [layer.out_features * layer.in_features];
  return layer.form === 'each' ? Array(layer.weights).fill(layer.features) : [];
}

function macsOf(layer, output) {
  if (layer.form === 'conv') return product(output) * Math.floor(layer.in_channels / layer.groups) * product(layer.kernel_size);
  return layer.form === 'fc' ? product(output) * layer.in_features : 0;
}

// The region of the input for each position of an adaptive pool, and the window that all follow, if they do.
function regionsOf(have, want) {
  const bounds = Array.from({ length: want }, (_, i) => [Math.floor(i * have / want), Math.ceil((i + 1) * have / want)]);
  const [size, step] = [bounds[0][1], want > 1 ? bounds[1][0] : have];
  return { bounds, size, step, regular: bounds.every(([first, end], i) => first === i * step && end === i * step + size) };
}

// The window of a layer on an input, as the rule prints it; null for other layers.
function windowOn(layer, size) {
  if (layer.form === 'conv' || layer.form === 'pool') return layer;
  if (layer.form !== 'adaptive') return null;
  const regions = size.map((have, axis) => regionsOf(have, layer.output_size[axis] ?? have));
  const window = {
    kernel_size: regions.map(({ bounds }) => Math.max(...bounds.map(([first, end]) => end - first))),
    stride: regions.map(({ bounds }, axis) => Math.floor(size[axis] / bounds.length)), padding: [0, 0], dilation: [1, 1], ceil: false,
  };
  const follows = window.stride.every(Boolean) && windowSize(window, size).every((side, axis) => side === regions[axis].bounds.length);
  return follows ? window : null;
}

function ruleOf(layer, shape, output) {
  const window = shape.length === 4 ? windowOn(layer, shape.slice(2)) : null;
  if (!window) return null;
  const sides = [0, 1].map((axis) => {
    const [w, k, p, s, d, result] = [shape[2 + axis], window.kernel_size[axis], window.padding[axis], window.stride[axis], window.dilation[axis], output[2 + axis]];
    const exact = (w - (d * (k - 1) + 1) + 2 * p) / s + 1;
    const value = exact === result ? String(result) : `${fraction(exact)} -> ${result}`;
    return `(${w}-${d === 1 ? k : `(${d}*(${k}-1)+1)`}+2*${p})/${s}+1 = ${value}`;
  });
  return [...new Set(sides)].join(', ');
}

// Receptive fields. The extent of a side is { n, size, stride, padding } or, where units follow no rule, { spans }.
const spanAt = (extent, unit) => {
  if (extent.spans) return extent.spans[unit] ?? null;
  const first = unit * extent.stride - extent.padding;
  return [first, first + extent.size - 1];
};

const hullOfSpans = (spans) => {
  const known = spans.filter(Boolean);
  return known.length ? [Math.min(...known.map(([first]) => first)), Math.max(...known.map(([, last]) => last))] : null;
};

function throughWindow(extent, { kernel, stride, padding, dilation }, units) {
  if (!extent.spans) {
    const reach = (kernel - 1) * dilation * extent.stride;
    return { n: units, size: extent.size + reach, stride: extent.stride * stride, padding: extent.padding + extent.stride * padding };
  }
  const taps = (start) => Array.from({ length: kernel }, (_, tap) => extent.spans[start + tap * dilation]);
  return { spans: Array.from({ length: units }, (_, unit) => hullOfSpans(taps(unit * stride - padding))) };
}

function throughRegions(extent, have, want) {
  const { bounds, size, step, regular } = regionsOf(have, want);
  if (regular) return throughWindow(extent, { kernel: size, stride: step, padding: 0, dilation: 1 }, want);
  const spans = bounds.map(([first, end]) => hullOfSpans(extent.spans ? extent.spans.slice(first, end) : [spanAt(extent, first), spanAt(extent, end - 1)]));
  const same = spans.every((span) => span && span.join() === spans[0]?.join());
  return same && !extent.spans ? { n: want, size: spans[0][1] - spans[0][0] + 1, stride: 0, padding: -spans[0][0] } : { spans };
}

// All units read as one, by a linear layer: the hull, with the stride that the units had.
function readAll(extent) {
  if (extent.spans) return { spans: [hullOfSpans(extent.spans)] };
  const [first, last] = [spanAt(extent, 0), spanAt(extent, extent.n - 1)];
  const hull = [Math.min(first[0], last[0]), Math.max(first[1], last[1])];
  return { n: 1, size: hull[1] - hull[0] + 1, stride: extent.stride, padding: -hull[0] };
}

function fieldsThrough(layer, fields, shape, output) {
  if (layer.form === 'fc') return shape.length === 2 ? fields.map((extent) => readAll(extent)) : [fields[0], readAll(fields[1])];
  if (shape.length !== 4) return fields;
  return fields.map((extent, axis) => {
    if (layer.form === 'adaptive') return throughRegions(extent, shape[2 + axis], output[2 + axis]);
    if (layer.form !== 'conv' && layer.form !== 'pool') return extent;
    return throughWindow(extent, { kernel: layer.kernel_size[axis], stride: layer.stride[axis], padding: layer.padding[axis], dilation: layer.dilation[axis] }, output[2 + axis]);
  });
}

// The rule that all units of an extent follow; null if there is none.
function regularOf(extent) {
  if (!extent.spans) return extent;
  const [first, second] = extent.spans;
  if (!first) return null;
  const stride = second ? second[0] - first[0] : 0;
  const regular = { n: extent.spans.length, size: first[1] - first[0] + 1, stride, padding: -first[0] };
  return extent.spans.every((span, unit) => span && span.join() === spanAt(regular, unit).join()) ? regular : null;
}

// The layers of the page's data with a reader's changes: fields by place, and the places that are left out. `path` are
// the modules around a layer.
function changedLayers(layers, names, { changes = {}, dropped = [] }) {
  return layers.map((layer, place) => ({ ...layer, ...changes[place], place, path: names[place].split(':')[0].split('.').slice(0, -1) }))
    .filter(({ place }) => !dropped.includes(place));
}

// Every figure of a changed network. `layers` are those of the page's data, changed; `adapt` fits each to its input. The
// layer that does not fit its input has `error`, and those after it have nothing.
function evaluateChain(layers, input, { width, adapt = true }) {
  let shape = [1, ...input];
  let fields = input.slice(1).map((side) => ({ n: side, size: 1, stride: 1, padding: 0 }));
  const rows = [];
  for (const given of layers) {
    const layer = adapt ? fittedLayer(given, shape) : given;
    let output;
    try {
      output = SHAPES[layer.form](layer, shape);
    } catch (error) {
      if (!(error instanceof RuleBroken)) throw error;
      rows.push({ layer, shape, error: error.message });
      return { rows, broken: true };
    }
    fields = fieldsThrough(layer, fields, shape, output);
    const rules = fields.map(regularOf);
    const params = parametersOf(layer);
    rows.push({
      layer, path: layer.path, shape, output, rule: ruleOf(layer, shape, output), params: params.reduce((a, b) => a + b, 0), sizes: params, macs: macsOf(layer, output),
      bytes: layer.allocates ? product(output) * width : 0, field: rules.every(Boolean) ? rules.map(({ size }) => size) : null,
    });
    shape = output;
  }
  const sum = (key) => rows.reduce((total, row) => total + row[key], 0);
  const totals = { params: sum('params'), macs: sum('macs'), paramBytes: sum('params') * width, activationBytes: sum('bytes') };
  return { rows, totals: { ...totals, inferencePeak: stepPeak(rows, input, width, false), trainingPeak: stepPeak(rows, input, width, true) } };
}
