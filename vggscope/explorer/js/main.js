// Start the page.

const THEME = 'vggscope-theme';

function startThemes() {
  const buttons = findAll('[data-theme-choice]');
  const choose = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    buttons.forEach((button) => button.setAttribute('aria-pressed', String(button.dataset.themeChoice === theme)));
  };
  buttons.forEach((button) => button.addEventListener('click', () => {
    choose(button.dataset.themeChoice);
    // A browser may refuse storage to a file; the choice then lasts until the page is closed.
    try { localStorage.setItem(THEME, button.dataset.themeChoice); } catch { /* as above */ }
  }));
  let stored = '';
  try { stored = localStorage.getItem(THEME) ?? ''; } catch { /* as above */ }
  choose(['light', 'dark'].includes(stored) ? stored : '');
}

// A link to a section scrolls there without changing the address, which names the chosen layer.
function startLinks() {
  findAll('a[data-goto]').forEach((link) => link.addEventListener('click', (event) => {
    event.preventDefault();
    const section = document.getElementById(link.dataset.goto);
    section.scrollIntoView();
    find('h2', section).focus({ preventScroll: true });
  }));
}

function fillOverview() {
  const { title, totals, input, dtype, layers, warnings } = model();
  const named = layers.filter(({ kind, params }) => params && (kind === 'conv' || kind === 'fc')).length;
  find('#title').textContent = title;
  find('#subtitle').textContent = `Input ${times(input)}, ${plural(layers.length, 'layer')}, ${count(named)} with weights`;
  const items = [
    ['Parameters', shortCount(totals.params), `${count(totals.params)}${totals.trainable < totals.params ? `, ${count(totals.params - totals.trainable)} frozen` : ''}`],
    ['MACs', shortCount(totals.macs), `${shortCount(totals.flops)} FLOPs`],
    ['Weights', bytesText(totals.paramBytes), `in ${dtype === 'mixed' ? 'several dtypes' : dtype}`],
    ['Activations', bytesText(totals.activationBytes), 'each output once'],
    ['Inference peak', bytesText(totals.inferencePeak), 'batch 1'],
    ['Training peak', bytesText(totals.trainingPeak), 'batch 1, SGD with momentum'],
  ];
  find('#totals').replaceChildren(...items.map(([name, value, more]) => el('div', {}, el('dt', {}, name), el('dd', {}, el('b', {}, value), el('span', {}, more)))));
  find('#warnings').replaceChildren(...warnings.map((warning) => el('p', { class: 'warning' }, warning)));
}

function startModels() {
  const holder = find('#models');
  holder.hidden = data.models.length < 2;
  const mark = segments(holder, data.models.map(({ title }, place) => [place, title]), chooseModel);
  holder.classList.add('segments');
  const show = () => { mark(state.model); fillOverview(); };
  on('model', show);
  show();
}

startThemes();
startLinks();
startModels();
startDiagram();
startTable();
startCharts();
startInspector();
startExplorer();
startRule();
startEdit();
startMemory();
startMaps();
startCompare();
startExports();
findAll('.scroll').forEach(endWithColumn);
window.addEventListener('hashchange', fromAddress);
if (!fromAddress()) select(firstChoice(), false);
document.documentElement.dataset.ready = 'true';
