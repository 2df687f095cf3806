// Numbers as text, as vggscope prints them: an unknown one is a question mark, never 0.

const UNKNOWN = '?';

const count = (value) => (value === null ? UNKNOWN : value.toLocaleString('en-US'));

// Whether a value lies exactly between two numbers of so many decimals; with fewer than 0, between two tens, hundreds, ...
// Such a value of n decimals is an odd multiple of 2^-(n + 1), and multiplying by a power of two is exact.
const isHalf = (value, decimals) => (decimals < 0
  ? Math.abs(value) % 10 ** -decimals === 5 * 10 ** (-decimals - 1)
  : (Math.abs(value) * 2 ** (decimals + 1)) % 2 === 1);

// Python rounds an exact half to the even digit, JavaScript up.
const evenHalf = (text, half) => (half ? text.replace(/^([-\d.]*)([13579])(?=e|$)/, (_, kept, last) => kept + (last - 1)) : text);

// Python's f"{value:.2f}" with 2 decimals.
const fixed = (value, decimals) => evenHalf(value.toFixed(decimals), isHalf(value, decimals));

// A fraction with two decimals, or with six where two would not show it: 112.5, 1.999.
const fraction = (value) => fixed(value, Number(fixed(value, 2)) % 1 ? 2 : 6).replace(/0+$/, '');

// The number that Python's f"{value:.3g}" shows.
function significant(value) {
  const text = value.toExponential(2);
  return Number(evenHalf(text, isHalf(value, 2 - Number(text.split('e')[1]))));
}

function shortCount(value, unit = '') {
  if (value === null) return UNKNOWN;
  for (const [scale, prefix] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) >= scale) return `${fixed(value / scale, 2)} ${prefix}${unit}`;
  }
  return `${value} ${unit}`.trimEnd();
}

function bytesText(value) {
  if (value === null) return UNKNOWN;
  if (Math.abs(value) >= 2 ** 20) return `${fixed(value / 2 ** 20, 2).replace(/\B(?=(\d{3})+\.)/g, ',')} MiB`;
  return Math.abs(value) >= 2 ** 10 ? `${fixed(value / 2 ** 10, 1)} KiB` : `${value} B`;
}

// A share above 0 is not rounded to 0%.
function share(part, whole) {
  if (!whole) return UNKNOWN;
  return part > 0 && part * 1000 < whole ? '<0.1%' : `${fixed(100 * part / whole, 1)}%`;
}

const product = (sides) => sides.reduce((total, side) => total * side, 1);

const times = (sides) => sides.map(count).join(' × ') || 'scalar';

const pair = (sides) => (new Set(sides).size === 1 ? String(sides[0]) : sides.join(' × '));

const region = (sides) => sides.join(' × ');

const plural = (number, word) => `${count(number)} ${word}${number === 1 ? '' : 's'}`;
