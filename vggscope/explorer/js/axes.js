// The frame of a chart: an axis of values with its unit, the groups of columns below, and a legend. All lengths are in
// pixels, so that text is as large as on the rest of the page.

const MARGIN = { left: 58, right: 8, top: 22, bottom: 20 };
const LEGEND_ROW = 19;

const KINDS = {
  conv: 'convolution', fc: 'fully connected', norm: 'normalization', pool: 'pooling', activation: 'activation', other: 'other', input: 'input',
};

const compact = (value) => {
  const [scale, prefix] = [[1e12, ' T'], [1e9, ' G'], [1e6, ' M'], [1e3, ' k']].find(([least]) => value >= least) ?? [1, ''];
  return `${significant(value / scale)}${prefix}`;
};

const BYTE_UNITS = [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'B']];

const compactBytes = (value) => {
  const [scale, word] = BYTE_UNITS.find(([least]) => value >= least) ?? [1, 'B'];
  return `${significant(value / scale)} ${word}`;
};

// The least of 1, 2, 5 times a power of ten with which at most five steps reach `most`.
function niceStep(most) {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return power * [1, 2, 5, 10].find((factor) => factor * power * 5 >= most * (1 - 1e-9));
}

// The values at which an axis has a line: round numbers of its unit, or powers where it is logarithmic.
function ticksOf(most, { bytes = false, logarithmic = false } = {}) {
  if (logarithmic) {
    const powers = [];
    for (let value = 1; value <= most; value *= bytes ? 32 : 10) powers.push(value);
    const every = Math.ceil(powers.length / 5);
    return [0, ...powers.filter((_, at) => (powers.length - 1 - at) % every === 0)];
  }
  const unit = bytes ? BYTE_UNITS.find(([least]) => most >= least)?.[0] ?? 1 : 1;
  const step = Math.max(niceStep(most / unit), bytes && unit > 1 ? 0 : 1) * unit;
  return Array.from({ length: Math.floor(most / step * (1 + 1e-9)) + 1 }, (_, at) => at * step);
}

const runsOf = (names) => names.reduce((runs, name) => {
  const last = runs[runs.length - 1];
  if (last?.name === name) last.size += 1;
  else runs.push({ name, size: 1 });
  return runs;
}, []);

// A chart of a size: `content` is drawn on `columns` by HEIGHT; `scaled` is the height of a value there. `groups` names
// the group of each column, `legend` has [class, word] of each colour.
function framed({ width, height, columns, unit, ticks, scaled, text, groups, legend }, content) {
  const rows = legendRows(legend, width - MARGIN.left - MARGIN.right);
  const inner = { x: MARGIN.left, y: MARGIN.top, width: Math.max(10, width - MARGIN.left - MARGIN.right), height: height - MARGIN.top - MARGIN.bottom - rows.length * LEGEND_ROW };
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true', class: 'chart-drawing' });
  drawing.append(svg('rect', { class: 'plot-ground', ...inner }), svg('text', { class: 'unit-word', x: 2, y: 12 }, unit));
  // A line close above another would print over its number.
  for (const value of ticks.filter((value, at) => at === 0 || (scaled(value) - scaled(ticks[at - 1])) * inner.height >= 13 * HEIGHT)) {
    const y = inner.y + inner.height * (1 - scaled(value) / HEIGHT);
    drawing.append(svg('path', { class: 'tick', d: `M${inner.x} ${y}h${inner.width}` }), svg('text', { class: 'tick-label', x: inner.x - 6, y: y + 4 }, text(value)));
  }
  drawing.append(svg('svg', { ...inner, viewBox: `0 0 ${columns} ${HEIGHT}`, preserveAspectRatio: 'none', class: 'columns-drawn' }, ...content));
  drawing.append(...groupMarks(groups, inner), ...rows.flatMap((row, at) => legendMarks(row, height - (rows.length - at) * LEGEND_ROW + 3)));
  return drawing;
}

function groupMarks(groups, inner) {
  const each = inner.width / groups.length;
  let column = 0;
  return runsOf(groups).flatMap(({ name, size }) => {
    const x = inner.x + column * each;
    column += size;
    const mark = svg('path', { class: 'group-mark', d: `M${x} ${inner.y + inner.height}v5` });
    const word = groupWord(name, size * each - 5);
    return [mark, word && svg('text', { class: 'group-word', x: x + 3, y: inner.y + inner.height + 14 }, word)].filter(Boolean);
  });
}

// The name of a group where there is room for it, else its last word, such as the number of a stage.
function groupWord(name, room) {
  if (textWidth(name) <= room) return name;
  const last = name.split(' ').pop();
  if (textWidth(last) <= room) return last;
  return room > 48 ? cutText(name, room) : '';
}

// The rows of a legend, each with the places of its items along it.
function legendRows(legend, room) {
  const rows = [];
  for (const [kind, word] of legend) {
    const width = textWidth(word) + 26;
    const row = rows[rows.length - 1];
    if (row && row.end + width <= room) { row.items.push([row.end, kind, word]); row.end += width; } else rows.push({ items: [[0, kind, word]], end: width });
  }
  return rows;
}

const legendMarks = ({ items }, y) => items.flatMap(([x, kind, word]) => [
  kind === 'limit' ? svg('path', { class: 'limit', d: `M${MARGIN.left + x} ${y + 6}h12` }) : svg('rect', { class: `fill ${kind}`, x: MARGIN.left + x, y, width: 11, height: 11, rx: 2 }),
  svg('text', { class: 'legend-word', x: MARGIN.left + x + 16, y: y + 10 }, word),
]);

// The column under a pointer.
function columnAt(plot, event, columns) {
  const box = plot.getBoundingClientRect();
  const share = (event.clientX - box.left - MARGIN.left) / Math.max(1, box.width - MARGIN.left - MARGIN.right);
  return clamp(Math.floor(share * columns), 0, columns - 1);
}
