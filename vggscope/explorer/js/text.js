// Numbers as text, as vggscope prints them: an unknown one is a question mark, never 0.

const UNKNOWN = '?';

const count = (value) => (value === null ? UNKNOWN : value.toLocaleString('en-US'));

function shortCount(value, unit = '') {
  if (value === null) return UNKNOWN;
  for (const [scale, prefix] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) >= scale) return `${(value / scale).toFixed(2)} ${prefix}${unit}`;
  }
  return `${value} ${unit}`.trimEnd();
}

function bytesText(value) {
  if (value === null) return UNKNOWN;
  const mebibytes = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  if (Math.abs(value) >= 2 ** 20) return `${(value / 2 ** 20).toLocaleString('en-US', mebibytes)} MiB`;
  return Math.abs(value) >= 2 ** 10 ? `${(value / 2 ** 10).toFixed(1)} KiB` : `${value} B`;
}

// A share above 0 is not rounded to 0%.
function share(part, whole) {
  if (!whole) return UNKNOWN;
  return part > 0 && part * 1000 < whole ? '<0.1%' : `${(100 * part / whole).toFixed(1)}%`;
}

const product = (sides) => sides.reduce((total, side) => total * side, 1);

const times = (sides) => sides.map(count).join(' × ') || 'scalar';

const pair = (sides) => (new Set(sides).size === 1 ? String(sides[0]) : sides.join(' × '));

const region = (sides) => sides.join(' × ');

const plural = (number, word) => `${count(number)} ${word}${number === 1 ? '' : 's'}`;
