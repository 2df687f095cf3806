// Every channel of a layer, the kernels and the weights. Where the page holds the kernels of a convolution and what it
// reads, it computes the inner product of any unit.

const MOST_TERMS = 4; // the input channels of an inner product that are listed

const sheet = { channel: 0, image: null };

const sheetOf = () => imageMaps()?.sheets[state.layer];

const kernelsOf = () => firstKernels() ?? model().weights?.kernels[state.layer];

const firstKernels = () => (model().weights?.first?.place === state.layer ? model().weights.first : null);

function loaded(uri) {
  const image = new Image();
  return new Promise((done) => { image.onload = () => done(image); image.src = uri; });
}

async function showSheet() {
  const own = sheetOf();
  find('#sheet').hidden = !own;
  if (!own) return;
  const image = await loaded(own.png);
  if (sheetOf() !== own) return;
  sheet.image = image;
  find('#sheet-channel').max = own.means.length - 1;
  const canvas = el('canvas', { width: image.width, height: image.height, role: 'img', 'aria-label': `All ${count(own.means.length)} channels of ${nameOf(layerAt(state.layer))}` });
  canvas.getContext('2d').drawImage(image, 0, 0);
  const [height, width] = own.size;
  const lines = svg('svg', { class: 'sheet-lines', viewBox: `0 0 ${image.width / width} ${image.height / height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('path', { d: gridPath(image.height / height, image.width / width), 'vector-effect': 'non-scaling-stroke' }));
  find('#sheet-grid').replaceChildren(canvas, lines, el('span', { class: 'sheet-mark', id: 'sheet-mark', 'aria-hidden': 'true' }));
  markChannel(clamp(sheet.channel, 0, own.means.length - 1));
}

// Mark a channel in the sheet and show it large.
function markChannel(channel) {
  const own = sheetOf();
  if (!own || !sheet.image) return;
  sheet.channel = channel;
  find('#sheet-channel').value = channel;
  const [height, width] = own.size;
  const [row, column] = [Math.floor(channel / own.columns), channel % own.columns];
  const mark = find('#sheet-mark');
  const percent = { left: column * width / sheet.image.width, top: row * height / sheet.image.height, width: width / sheet.image.width, height: height / sheet.image.height };
  for (const [side, part] of Object.entries(percent)) mark.style[side] = `${100 * part}%`;
  const canvas = el('canvas', { width, height, role: 'img', 'aria-label': `Channel ${channel}` });
  canvas.getContext('2d').drawImage(sheet.image, column * width, row * height, width, height, 0, 0, width, height);
  find('#sheet-one').replaceChildren(canvas);
  find('#sheet-text').textContent = `Channel ${channel} of ${nameOf(layerAt(state.layer))}: mean activation ${number(own.means[channel])}, negative values counted as 0.`;
  findAll('#kernels button').forEach((button, at) => (at === channel ? button.setAttribute('aria-current', 'true') : button.removeAttribute('aria-current')));
}

function chooseChannel(channel) {
  const strongest = imageMaps().layers[state.layer]?.channels?.find((own) => own.channel === channel);
  markChannel(channel);
  findAll('#maps button').forEach((button) => button.removeAttribute('aria-current'));
  if (kernelsOf()) return showUnit();
  if (strongest) return showProduct(strongest);
  return find('#product').replaceChildren(el('p', { class: 'quiet' }, 'Of this layer the page holds the inner products of the strongest channels alone: its weights and inputs would be too large.'));
}

function floatsOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// What the chosen convolution reads, as planes of numbers, with its weights.
async function convolutionAt() {
  const first = firstKernels();
  if (first) return { ...first, groups: 1, planes: await pixelsOf(imageMaps().pixels, first) };
  const kernels = model().weights.kernels[state.layer];
  const area = product(layerAt(state.layer).in.slice(1));
  const values = floatsOf(imageMaps().inputs[state.layer]);
  const planes = Array.from({ length: values.length / area }, (_, channel) => values.subarray(channel * area, (channel + 1) * area));
  return { ...kernels, weights: floatsOf(kernels.weights), planes };
}

// The pixels of the image as the network takes them.
async function pixelsOf(uri, { mean, deviation }) {
  const image = await loaded(uri);
  const canvas = el('canvas', { width: image.width, height: image.height });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const read = context.getImageData(0, 0, image.width, image.height).data;
  return mean.map((own, channel) => Float32Array.from({ length: image.width * image.height }, (_, at) => (read[4 * at + channel] / 255 - own) / deviation[channel]));
}

// The inner product of a unit of a convolution, with its largest terms.
function productAt({ planes, weights, bias, groups }, win, channel, [row, column]) {
  const [height, width] = win.size;
  const [rows, columns] = win.kernel;
  const inputs = planes.length / groups;
  const firstInput = Math.floor(channel / (layerAt(state.layer).out[0] / groups)) * inputs;
  const grid = (value) => Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (__, j) => value(i, j)));
  const terms = Array.from({ length: inputs }, (_, input) => {
    const plane = planes[firstInput + input];
    const own = grid((i, j) => weights[((channel * inputs + input) * rows + i) * columns + j]);
    const values = grid((i, j) => {
      const [y, x] = [row * win.stride[0] - win.padding[0] + i * win.dilation[0], column * win.stride[1] - win.padding[1] + j * win.dilation[1]];
      return y >= 0 && y < height && x >= 0 && x < width ? plane[y * width + x] : 0;
    });
    const flat = own.flat();
    return { channel: firstInput + input, values, weights: own, sum: values.flat().reduce((total, value, at) => total + value * flat[at], 0) };
  });
  const total = terms.reduce((sums, { sum }) => sums + sum, 0);
  const largest = [...terms].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum)).slice(0, MOST_TERMS);
  const others = total - largest.reduce((sums, { sum }) => sums + sum, 0);
  const own = bias ? bias[channel] : 0;
  return { value: total + own, product: { inputs, terms: largest, others, bias: bias ? own : null } };
}

async function showUnit() {
  const [place, image] = [state.layer, state.image];
  if (!kernelsOf() || shown() !== place) return;
  const convolution = await convolutionAt();
  if (state.layer !== place || state.image !== image) return;
  const [unit, channel] = [unitOf(place), Math.min(sheet.channel, layerAt(place).out[0] - 1)];
  showProduct({ channel, unit, ...productAt(convolution, windowOf(place), channel, unit) });
}

function showWeights() {
  const own = model().weights?.histograms[state.layer];
  find('#weights').hidden = !own;
  if (!own) return;
  const total = own.counts.reduce((a, b) => a + b, 0);
  find('#weights-text').textContent = `${count(total)} weights of ${nameOf(layerAt(state.layer))} from ${number(own.low)} to ${number(own.high)}: mean ${number(own.mean)}, standard deviation ${number(own.deviation)}; ${own.zeros ? count(own.zeros) : 'none'} of them exactly 0.`;
  drawHistogram(own);
  drawKernels();
}

function drawHistogram({ low, high, counts }) {
  const most = HEADROOM * Math.max(...counts);
  const path = counts.map((value, bin) => `M${bin + 0.04} ${HEIGHT}V${HEIGHT - HEIGHT * value / most}h.92V${HEIGHT}z`).join('');
  const quarter = (bin) => Math.floor(4 * bin / counts.length) * counts.length / 4;
  const holder = find('#histogram');
  holder.setAttribute('aria-label', `Histogram of the weights from ${number(low)} to ${number(high)}`);
  holder.replaceChildren(framed({
    width: Math.max(240, holder.clientWidth), height: 160, columns: counts.length, unit: 'weights in each bin of values', ticks: ticksOf(most), scaled: (value) => HEIGHT * value / most, text: compact,
    groups: counts.map((_, bin) => number(low + (high - low) * quarter(bin) / counts.length)), legend: [],
  }, [svg('path', { class: 'fill conv', d: path })]));
}

// The kernels of the first convolution as pictures: grey is 0, in colour where the image has colours.
function drawKernels() {
  const first = firstKernels();
  const win = first && windowOf(state.layer);
  const [rows, columns] = win ? win.kernel : [0, 0];
  const inputs = first ? first.mean.length : 0;
  const most = first ? Math.max(...first.weights.map(Math.abs)) || 1 : 1;
  const channels = first ? layerAt(state.layer).out[0] : 0;
  find('#kernels').replaceChildren(...Array.from({ length: channels }, (_, channel) => {
    const canvas = el('canvas', { width: columns, height: rows });
    const context = canvas.getContext('2d');
    const picture = context.createImageData(columns, rows);
    for (let at = 0; at < rows * columns; at += 1) {
      const shade = (input) => 127.5 + 127.5 * first.weights[(channel * inputs + Math.min(input, inputs - 1)) * rows * columns + at] / most;
      picture.data.set([shade(0), shade(1), shade(2), 255], 4 * at);
    }
    context.putImageData(picture, 0, 0);
    const button = el('button', { type: 'button', 'aria-label': `Kernel of channel ${channel}`, 'aria-current': channel === sheet.channel ? 'true' : null }, canvas);
    button.addEventListener('click', () => chooseChannel(channel));
    return button;
  }));
}

// Save canvases side by side, each pixel of theirs large enough to be seen.
function saveCanvases(canvases, name) {
  const scale = Math.max(1, Math.round(320 / Math.max(...canvases.map(({ height }) => height))));
  const whole = el('canvas', { width: canvases.reduce((total, { width }) => total + width * scale + 8, -8), height: Math.max(...canvases.map(({ height }) => height)) * scale });
  const context = whole.getContext('2d');
  context.imageSmoothingEnabled = false;
  let x = 0;
  for (const canvas of canvases) {
    context.drawImage(canvas, x, 0, canvas.width * scale, canvas.height * scale);
    x += canvas.width * scale + 8;
  }
  whole.toBlob((blob) => save(blob, `${slug(nameOf(layerAt(state.layer)))}-${name}.png`));
}

function startChannels() {
  find('#sheet-channel').addEventListener('input', () => {
    const own = sheetOf();
    if (own && find('#sheet-channel').value !== '') chooseChannel(clamp(Math.floor(Number(find('#sheet-channel').value)), 0, own.means.length - 1));
  });
  find('#sheet-grid').addEventListener('click', (event) => {
    const own = sheetOf();
    const box = find('canvas', find('#sheet-grid')).getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / box.height * sheet.image.height / own.size[0]);
    const column = Math.floor((event.clientX - box.left) / box.width * sheet.image.width / own.size[1]);
    if (row * own.columns + column < own.means.length) chooseChannel(row * own.columns + column);
  });
  const saveMaps = saveButton('the feature maps', 'PNG', () => saveCanvases(findAll('#maps canvas'), 'maps'));
  find('#maps').after(saveMaps);
  find('#sheet-grid').after(saveButton('all channels', 'PNG', () => saveCanvases(findAll('#sheet-grid canvas'), 'channels')));
  on('layer', () => { saveMaps.hidden = !find('#maps canvas'); });
  on('unit', showUnit);
  find('#histogram').after(pictureButtons('the histogram', 'weights', () => find('#histogram > svg')));
  onWidth(find('#maps-section'), () => { if (model().weights?.histograms[state.layer]) drawHistogram(model().weights.histograms[state.layer]); });
}
