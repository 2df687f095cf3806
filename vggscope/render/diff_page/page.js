(() => {
'use strict';
// Keys and buttons. The page shows the same without them; nothing here reads or writes anything but this page.
const all = (selector) => [...document.querySelectorAll(selector)];

// Open what holds an element, and move there.
function reveal(element) {
  for (let at = element.parentElement; at; at = at.parentElement) if (at.tagName === 'DETAILS') at.open = true;
  element.scrollIntoView({ block: 'center' });
  element.focus({ preventScroll: true });
}

function revealTarget() {
  const element = /^#(row|difference)-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (element) reveal(element);
}
addEventListener('hashchange', revealTarget);
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.getAttribute('href') === location.hash) revealTarget();
});

// The next or the previous difference that is shown, from the one where the focus is.
let at = -1;
function step(by) {
  const shown = all('.difference[id]').filter((item) => item.offsetParent !== null);
  if (!shown.length) return;
  const here = document.activeElement.closest('.difference[id]');
  at = here ? shown.indexOf(here) : at;
  at = Math.min(Math.max(at + by, 0), shown.length - 1);
  reveal(shown[at]);
}

function button(words, key, act) {
  const made = document.createElement('button');
  made.type = 'button';
  made.append(words);
  if (key) {
    const hint = document.createElement('kbd');
    hint.textContent = key;
    made.append(hint);
    made.setAttribute('aria-keyshortcuts', key);
  }
  made.addEventListener('click', act);
  return made;
}

const THEMES = ['', 'light', 'dark'];
function nextTheme() {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? '') + 1) % THEMES.length];
  if (next) root.dataset.theme = next; else delete root.dataset.theme;
  themes.firstChild.textContent = `Theme: ${next || 'auto'}`;
}
const themes = button('Theme: auto', 't', nextTheme);
const keys = { n: () => step(1), p: () => step(-1), t: nextTheme };

const openAll = (selector, open) => all(selector).forEach((item) => { item.open = open; });
document.getElementById('list-tools')?.append(button('Next', 'n', keys.n), button('Previous', 'p', keys.p), themes);
document.getElementById('drawing-tools')?.append(
  button('Open all', '', () => openAll('.drawing details', true)), button('Fold all', '', () => openAll('.drawing details', false)));
document.getElementById('show-none')?.addEventListener('change', (event) => openAll('.harmless', event.target.checked));
document.addEventListener('keydown', (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) keys[event.key]?.();
});
revealTarget();
document.documentElement.dataset.ready = '';
})();
