// The explorer: the feature map of a layer beside the image. To point at one shows the place in the other.

const LEAST_CELL = 5;

// The smallest cell of a grid in screen pixels; a finer grid would only grey the map.
const hasGrid = (holder, rows, columns) => holder.clientWidth >= LEAST_CELL * Math.max(rows, columns);

function drawMap(place) {
  const { map } = model().fields.layers[place];
  const [rows, columns] = map.length === 2 ? map : [1, map[0] ?? 1];
  const unit = unitOf(place);
  const [row, column] = unit.length === 2 ? unit : [0, unit[0] ?? 0];
  const layer = layerAt(place);
  const drawing = svg('svg', { viewBox: `${-columns * 0.02} ${-rows * 0.02} ${columns * 1.04} ${rows * 1.04}`, 'aria-hidden': 'true' });
  drawing.append(svg('rect', { class: `ground ${layer.kind}`, width: columns, height: rows }));
  if (hasGrid(find('#map'), rows, columns)) drawing.append(svg('path', { class: 'grid', 'vector-effect': 'non-scaling-stroke', d: gridPath(rows, columns) }));
  else drawing.append(svg('path', { class: 'cross', 'vector-effect': 'non-scaling-stroke', d: `M0 ${row + 0.5}H${columns}M${column + 0.5} 0V${rows}` }));
  // Draw a unit of a large map larger than it is, so that it is visible.
  const size = Math.max(1, Math.max(rows, columns) / 48);
  drawing.append(svg('rect', { class: 'unit', x: column + 0.5 - size / 2, y: row + 0.5 - size / 2, width: size, height: size }));
  find('#map').replaceChildren(drawing);
}

function gridPath(rows, columns) {
  let path = '';
  for (let row = 0; row <= rows; row += 1) path += `M0 ${row}H${columns}`;
  for (let column = 0; column <= columns; column += 1) path += `M${column} 0V${rows}`;
  return path;
}

function showField() {
  const place = shown();
  const layer = layerAt(place);
  const field = model().fields.layers[place];
  const unit = unitOf(place);
  drawMap(place);
  const box = drawImage(find('#image'), place, unit);
  drawSeen(find('#seen'), box);
  find('#map-caption').textContent = `Feature map of ${nameOf(layer)}: ${field.map.length ? region(field.map) : 'one unit'}`;
  find('#image-caption').textContent = `Input: ${region(imageSides())} px`;
  find('#field-text').replaceChildren(...sentence(layer, field, unit, box));
  const items = [['size', field.size], ['stride', field.stride], ['padding', field.padding]].map(([name, sides]) => [name, sides ? `${pair(sides)} px` : UNKNOWN]);
  const seen = box && clipped(box);
  const pixels = box ? product(sizeOf(box)) : null;
  if (box) items.push(['padding’s share', share(pixels - (seen ? product(sizeOf(seen)) : 0), pixels)]);
  find('#field-facts').replaceChildren(...facts(items));
  const map = find('#map');
  map.setAttribute('aria-label', `Feature map of ${nameOf(layer)}, ${region(field.map)}, at unit ${unit.join(', ')}`);
}

function sentence(layer, field, unit, box) {
  if (!box) return [field.note ?? `No rule tells what a unit of ${nameOf(layer)} sees.`];
  const [rows, columns] = box.first.map((first, axis) => `${first} to ${box.last[axis]}`);
  const text = [el('strong', {}, `Unit ${unit.join(', ')}`), ` of ${nameOf(layer)} sees rows `, el('span', { id: 'rows' }, rows), ' and columns ', el('span', { id: 'columns' }, columns), ` of the image: ${region(sizeOf(box))} pixels.`];
  return field.note ? [...text, ` Note: ${field.note}.`] : text;
}

function moveUnit(event) {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [-1e6, -1e6], End: [1e6, 1e6] }[event.key];
  const { map } = model().fields.layers[shown()];
  if (!by || !map.length) return;
  event.preventDefault();
  const steps = map.length === 2 ? by : [by[0] + by[1]];
  chooseUnit(unitOf(shown()).map((place, axis) => clamp(place + steps[axis], 0, map[axis] - 1)));
}

// The position of a pointer event in the coordinates of a drawing, [row, column].
function pointIn(holder, event) {
  const drawing = find('svg', holder);
  if (!drawing) return null;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
  return [point.y, point.x];
}

function unitUnder(event) {
  const { map } = model().fields.layers[shown()];
  const point = pointIn(find('#map'), event);
  if (!point || !map.length) return;
  const places = map.length === 2 ? point : [point[1]];
  chooseUnit(places.map((place, axis) => clamp(Math.floor(place), 0, map[axis] - 1)));
}

// The unit whose window has its centre nearest to a pixel.
function unitOver(event) {
  const { map } = model().fields.layers[shown()];
  const point = pointIn(find('#image'), event);
  const sides = extentsOf(shown());
  if (!point || sides.length !== 2 || map.length !== 2) return;
  chooseUnit(sides.map(([own, extent], axis) => (own ? nearest(extent, point[axis] - 0.5) : 0)));
}

function nearest(extent, pixel) {
  if (!extent.spans) return clamp(Math.round((pixel + extent.padding - (extent.size - 1) / 2) / (extent.stride || 1)), 0, extent.n - 1);
  const away = extent.spans.map((span) => (span ? Math.abs((span[0] + span[1]) / 2 - pixel) : Infinity));
  return away.indexOf(Math.min(...away));
}

// The choice of an image, wherever the page shows it.
function startImages() {
  if (data.images.length < 2) return;
  const marks = findAll('.images').map((holder) => segments(holder, data.images.map(({ name }, place) => [place, name]), chooseImage));
  const show = () => marks.forEach((mark) => mark(state.image));
  on('image', show);
  show();
}

function startExplorer() {
  find('#map').addEventListener('pointermove', eachFrame(unitUnder));
  find('#map').addEventListener('pointerdown', unitUnder);
  find('#map').addEventListener('keydown', moveUnit);
  find('#image').addEventListener('pointermove', eachFrame(unitOver));
  find('#image').addEventListener('pointerdown', unitOver);
  startImages();
  on('layer', showField);
  on('image', showField);
  on('unit', showField);
}
