// The receptive field of a unit: the box by its layer's rule, drawn on the image.

function spanOf(extent, unit) {
  if (extent.spans) return extent.spans[unit] ?? null;
  const first = unit * extent.stride - extent.padding;
  return [first, first + extent.size - 1];
}

function hullOf(extent) {
  if (!extent.spans) return [spanOf(extent, 0)[0], spanOf(extent, extent.n - 1)[1]];
  const known = extent.spans.filter(Boolean);
  return known.length ? [Math.min(...known.map(([first]) => first)), Math.max(...known.map(([, last]) => last))] : null;
}

const extentsOf = (place) => (model().fields.layers[place].sides ?? []).map(([own, extent]) => [own, model().fields.extents[extent]]);

// The box of a unit, [first row, first column] to [last row, last column] inclusive; null if it is unknown.
function boxOf(place, unit) {
  const sides = extentsOf(place);
  if (sides.length !== 2 || !unit) return null;
  const spans = sides.map(([own, extent], axis) => spanOf(extent, own ? unit[unit.length < 2 ? 0 : axis] : 0));
  return spans.every(Boolean) ? { first: spans.map(([first]) => first), last: spans.map(([, last]) => last) } : null;
}

const middle = (place) => model().fields.layers[place].map.map((side) => Math.floor(side / 2));

// The chosen unit of a layer, or the one in the centre of its map.
const unitOf = (place) => state.unit ?? middle(place);

const imageSides = () => model().fields.sides;

function clipped(box) {
  const sides = imageSides();
  const first = box.first.map((place) => Math.max(place, 0));
  const last = box.last.map((place, axis) => Math.min(place, sides[axis] - 1));
  return first.some((place, axis) => place > last[axis]) ? null : { first, last };
}

const sizeOf = (box) => box.last.map((last, axis) => last - box.first[axis] + 1);

// The hatch of padding. Each drawing has its own pattern, so that the hatch is equally fine at any scale.
function padded(holder, rect, scale) {
  const size = scale / 36;
  const id = `hatch-${holder.id}`;
  return [
    svg('pattern', { id, width: size, height: size, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      svg('rect', { class: 'hatch-ground', width: size, height: size }), svg('rect', { class: 'hatch-line', width: size / 4, height: size })),
    svg('rect', { fill: `url(#${id})`, ...rect }),
  ];
}

const rectOf = (box) => ({ x: box.first[1], y: box.first[0], width: sizeOf(box)[1], height: sizeOf(box)[0] });

function drawImage(holder, place, unit) {
  const [height, width] = imageSides();
  if (imageSides().length !== 2) return holder.replaceChildren();
  const hulls = extentsOf(place).length === 2 ? extentsOf(place).map(([, extent]) => hullOf(extent)) : [null, null];
  const edge = (axis, side) => (hulls[axis] ? Math.max(-hulls[axis][0], hulls[axis][1] - side + 1, 0) : 0);
  const [top, left] = [edge(0, height), edge(1, width)];
  const margin = Math.max(height, width) * 0.02;
  const view = [-left - margin, -top - margin, width + 2 * (left + margin), height + 2 * (top + margin)];
  const drawing = svg('svg', { viewBox: view.join(' '), 'aria-hidden': 'true' });
  if (top || left) drawing.append(...padded(holder, { x: -left, y: -top, width: width + 2 * left, height: height + 2 * top }, view[3]));
  drawing.append(picture());
  const box = boxOf(place, unit);
  if (box) drawing.append(...marks(box, [left, top, width, height]));
  holder.replaceChildren(drawing);
  return box;
}

// The image at the size of the input: the reader's own, or the drawn sample.
function picture() {
  const [height, width] = imageSides();
  return data.images.length
    ? svg('image', { href: data.images[state.image].uri, width, height, preserveAspectRatio: 'xMidYMid slice' })
    : svg('use', { href: '#scene', width, height });
}

// The box alone, as large as fits: the part of the image and of the padding that the unit sees.
function drawSeen(holder, box) {
  if (!box) return holder.replaceChildren();
  const rect = rectOf(box);
  const drawing = svg('svg', { viewBox: `${rect.x} ${rect.y} ${rect.width} ${rect.height}`, 'aria-hidden': 'true' });
  drawing.append(...padded(holder, rect, Math.max(rect.width, rect.height)), picture());
  return holder.replaceChildren(drawing);
}

function marks(box, [left, top, width, height]) {
  const inside = clipped(box);
  const outer = `M${-left} ${-top}h${width + 2 * left}v${height + 2 * top}h${-width - 2 * left}z`;
  const { x, y, width: w, height: h } = rectOf(box);
  return [
    svg('path', { class: 'veil', 'fill-rule': 'evenodd', d: `${outer}M${x} ${y}h${w}v${h}h${-w}z` }),
    svg('rect', { class: 'box-back', 'vector-effect': 'non-scaling-stroke', ...rectOf(box) }),
    svg('rect', { class: 'box', 'vector-effect': 'non-scaling-stroke', ...rectOf(box) }),
    inside ? svg('rect', { class: 'inside', 'vector-effect': 'non-scaling-stroke', ...rectOf(inside) }) : null,
  ].filter(Boolean);
}
