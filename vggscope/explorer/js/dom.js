// Create elements. Text becomes a text node, so no name of a layer can become markup.

const SVG = 'http://www.w3.org/2000/svg';

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Run a function at most once per frame, since a pointer moves more often than that.
function eachFrame(run) {
  let waiting = null;
  return (...values) => {
    if (waiting === null) requestAnimationFrame(() => { const latest = waiting; waiting = null; run(...latest); });
    waiting = values;
  };
}

function segments(holder, choices, choose) {
  const buttons = choices.map(([value, word]) => {
    const button = el('button', { type: 'button', 'aria-pressed': 'false' }, word);
    button.addEventListener('click', () => choose(value));
    return [value, button];
  });
  holder.replaceChildren(...buttons.map(([, button]) => button));
  return (chosen) => buttons.forEach(([value, button]) => button.setAttribute('aria-pressed', String(value === chosen)));
}

const ruler = document.createElement('canvas').getContext('2d');

// The width in pixels of text of a drawing, which is 12 pixels high.
function textWidth(text, bold = false) {
  ruler.font = `${bold ? '600 ' : ''}12px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

// Text cut to a width in pixels.
function cutText(text, width, bold = false) {
  if (textWidth(text, bold) <= width) return text;
  let length = text.length;
  while (length > 1 && textWidth(`${text.slice(0, length)}…`, bold) > width) length -= 1;
  return `${text.slice(0, length)}…`;
}

// Run a function when the width of an element changes, at most once per frame.
function onWidth(element, run) {
  let width = element.clientWidth;
  new ResizeObserver(eachFrame(() => {
    if (element.clientWidth === width || !element.clientWidth) return;
    width = element.clientWidth;
    run();
  })).observe(element);
}

// Let a frame whose table is wider end where one of its columns does: half a column would look like the end of the table.
function endWithColumn(frame) {
  const content = frame.firstElementChild;
  const fit = eachFrame(() => {
    frame.style.maxWidth = '';
    const { left } = content.getBoundingClientRect();
    const ends = findAll('thead th', content).map((cell) => cell.getBoundingClientRect().right - left);
    const whole = ends.filter((end) => end <= frame.clientWidth + 1);
    // With one column alone there is no room to scroll in.
    if (1 < whole.length && whole.length < ends.length) frame.style.maxWidth = `${Math.max(...whole)}px`;
  });
  const observer = new ResizeObserver(fit);
  [frame.parentElement, content].forEach((element) => observer.observe(element));
}

const facts = (items) => items.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]);
