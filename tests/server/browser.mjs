// Drives ComfyUI's frontend in a Chromium without a window, and writes down what is to be seen there.
//
//     node --input-type=module - JOB.json < browser.mjs       in a folder whose node_modules/ has both imports
//
// The job: {url, workflows: {name: graph}, uploads: {node: file}, shots, seen}, paths being absolute. What was seen goes to `seen`,
// as {workflows: {name: {missing, faulty, said, prompt, grown}}, examples, uploaded, built, subgraph, help, queued, sliders, found,
// greyed, chinese, errors}, with {failed: text} for a part that broke off; a picture of every workflow goes to `shots`, one of the quick
// start after its run, and one of the sliders.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import chromium from '@sparticuz/chromium';
import { chromium as launcher } from 'playwright-core';

const START_LIMIT = 300_000, LIMIT = 180_000;           // ms for the page, and for anything on it, on a slow machine
const VIEW = { width: 2000, height: 1100 };             // px
const MARGIN = { left: 80, top: 150, right: 30, bottom: 30 };           // px of the view that the page's own controls cover
const SETTINGS = {                                      // of a user who has been here before
  'Comfy.TutorialCompleted': true, 'Comfy.Minimap.Visible': false, 'Comfy.Graph.CanvasInfo': false,
  'Comfy.Graph.CanvasMenu': false,
};

const job = JSON.parse(readFileSync(process.argv.at(-1)));
chromium.setGraphicsMode = false;                       // no WebGL: the page does not use it, and on a CPU it costs as much again
const browser = await launcher.launch({
  executablePath: await chromium.executablePath(),
  args: [...chromium.args.filter(argument => argument !== '--single-process'), '--no-sandbox'],
});
const seen = { workflows: {}, errors: [] };
let page;

try {
  await open();
  for (const [name, graph] of Object.entries(job.workflows)) seen.workflows[name] = await attempt(() => load(name, graph));
  seen.examples = await attempt(examples);
  seen.uploaded = await attempt(upload);
  seen.queued = await attempt(queue);
  seen.sliders = await attempt(sliders);
  seen.built = await attempt(build);
  seen.subgraph = await attempt(subgraph);
  seen.help = await attempt(() => help('RealPortraitExtractKeypoints'));
  seen.found = await attempt(() => search('live portrait'));
  seen.greyed = await attempt(greyed);
  seen.chinese = await attempt(chinese);
} finally {
  writeFileSync(job.seen, JSON.stringify(seen));
  await browser.close();
}

async function attempt(part) {
  try {
    return await part();
  } catch (error) {
    return { failed: String(error.stack) };
  }
}

/** A page of its own: one opened again would show the graph that was left there, which may be empty. */
async function open() {
  await page?.close();
  page = await browser.newPage({ viewport: VIEW });
  page.setDefaultTimeout(LIMIT);
  page.on('pageerror', error => seen.errors.push(String(error)));
  for (const [name, data] of Object.entries(SETTINGS)) {
    await page.request.post(`${job.url}/api/settings/${name}`, { data: JSON.stringify(data) });
  }
  await page.goto(job.url, { timeout: START_LIMIT });
  await page.waitForFunction(
    () => window.app?.graph?._nodes.length && LiteGraph.registered_node_types.RealPortraitSampler,
    null, { timeout: START_LIMIT },
  );
  await page.waitForTimeout(2000);                      // the page's own graph is still moved into the view
}

/** Dialogs and messages of errors on the page. */
function complaints() {
  return page.locator('.p-dialog, .p-toast-message-error, .p-toast-message-warn').allInnerTexts();
}

async function load(name, graph) {
  const [missing, faulty] = await page.evaluate(async ([name, graph]) => {
    await app.loadGraphData(graph, true, true, name);
    const nodes = app.graph._nodes;
    return [
      graph.nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type]),
      nodes.filter(node => node.has_errors).map(node => node.type),
    ];
  }, [name, graph]);
  await page.waitForTimeout(2000);                      // a dialog comes after the graph; so do the pictures on the nodes
  const said = await complaints();
  const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);
  await photograph(name);
  return { missing, faulty, said, prompt, grown: await page.evaluate(grown, sizesOf(graph)) };
}

/** The size of each node in a file, by its id. */
function sizesOf(graph) {
  return Object.fromEntries(graph.nodes.map(node => [node.id, node.size]));
}

/** In the page: nodes that are larger than the file says. */
function grown(sizes) {
  return app.graph._nodes.filter(node => sizes[node.id].some((size, axis) => node.size[axis] > size)).map(
    node => [node.type, ...node.size],
  );
}

/** A picture of the whole graph, and of nothing else. */
async function photograph(name) {
  const clip = await page.evaluate(margin => {
    const shapes = [...app.graph._groups, ...app.graph._nodes].map(item => item.boundingRect ?? item._bounding);
    const [left, top] = [0, 1].map(axis => Math.min(...shapes.map(shape => shape[axis])));
    const [right, bottom] = [0, 1].map(axis => Math.max(...shapes.map(shape => shape[axis] + shape[axis + 2])));
    const frame = app.canvas.canvas.getBoundingClientRect();
    const room = [innerWidth - margin.left - margin.right, innerHeight - margin.top - margin.bottom];
    const scale = Math.min(room[0] / (right - left), room[1] / (bottom - top));
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [(margin.left - frame.left) / scale - left, (margin.top - frame.top) / scale - top];
    app.canvas.setDirty(true, true);
    return { x: margin.left - 10, y: margin.top - 10, width: (right - left) * scale + 20, height: (bottom - top) * scale + 20 };
  }, MARGIN);
  await page.waitForTimeout(1000);
  await page.screenshot({ path: join(job.shots, `${name}.png`), clip });
}

/** Widths of what the quick start's two loaders show. */
async function examples() {
  await load('animate_portrait', job.workflows.animate_portrait);
  return page.evaluate(() => {
    const node = type => app.graph._nodes.find(node => node.type === type);
    return {
      picture: node('RealPortraitLoadPortrait').imgs?.[0]?.naturalWidth,
      video: node('RealPortraitLoadDrivingVideo').videoContainer?.querySelector('video')?.videoWidth,
    };
  });
}

/** A file by the button of each loader: what is chosen then, and what the menu offers. */
async function upload() {
  const uploaded = {};
  for (const [type, file] of Object.entries(job.uploads)) {
    const [chooser] = await Promise.all([
      page.waitForEvent('filechooser'),
      page.evaluate(type => {
        app.graph.clear();
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        node.widgets.find(widget => widget.type === 'button').callback();
      }, type),
    ]);
    await chooser.setFiles(file);
    await page.waitForFunction(name => app.graph._nodes[0].widgets[0].value === name, file.split('/').at(-1));
    uploaded[type] = await page.evaluate(() => {
      const { value, options } = app.graph._nodes[0].widgets[0];
      return { value, options: options.values };
    });
  }
  return uploaded;
}

/** The quick start as it is, by the page's own button; which nodes show pictures, and which grew. */
async function queue() {
  await load('animate_portrait', job.workflows.animate_portrait);
  await page.evaluate(() => {
    window.ended = new Promise(resolve => {
      for (const kind of ['execution_success', 'execution_error']) {
        app.api.addEventListener(kind, event => resolve({ kind, detail: event.detail }));
      }
    });
  });
  await page.getByTestId('queue-button').click();
  const ended = await page.evaluate(() => window.ended);
  await page.waitForTimeout(2000);                      // the pictures on the nodes come after the messages that name them
  const said = await complaints();
  await page.getByText('job completed').waitFor({ state: 'hidden', timeout: 20000 }).catch(() => {});      // lies over the graph
  await photograph('queued');
  const pictures = await page.evaluate(
    () => app.graph._nodes.filter(node => node.imgs?.some(image => image.naturalWidth)).map(node => node.type),
  );
  return { ...ended, said, pictures, grown: await page.evaluate(grown, sizesOf(job.workflows.animate_portrait)) };
}

/** Sliders of Edit Expression moved by their widgets' callbacks, Run never pressed: which pictures the node then shows, and what ran. */
async function sliders() {
  await load('expression_sliders', job.workflows.expression_sliders);
  await page.evaluate(() => {
    window.prompts = { started: [], ended: [], nodes: [] };
    app.api.addEventListener('execution_start', event => window.prompts.started.push(event.detail.prompt_id));
    app.api.addEventListener('execution_success', event => window.prompts.ended.push(event.detail.prompt_id));
    app.api.addEventListener('executed', event => window.prompts.nodes.push(event.detail.node));
    window.expression = app.graph._nodes.find(node => node.type === 'RealPortraitEditExpression');
    window.move = (name, value) => {
      const widget = expression.widgets.find(widget => widget.name === name);
      widget.value = value;
      widget.callback(value, app.canvas, expression);
    };
    window.shown = () => app.nodeOutputs[expression.id]?.images?.[0];
  });
  const one = async (name, value) => {
    const before = await page.evaluate(([name, value]) => {
      const before = shown()?.filename ?? '';
      move(name, value);
      return before;
    }, [name, value]);
    await page.waitForFunction(before => shown() && shown().filename !== before, before);
    return page.evaluate(() => shown());
  };
  const pictures = [await one('yaw', 20), await one('yaw', -20)];
  const alone = await page.evaluate(() => [...new Set(prompts.nodes)]);
  // Twelve moves while the first of them still runs: the last one counts.
  const burst = await page.evaluate(async () => {
    const before = prompts.started.length;
    for (let step = 1; step <= 12; step++) {
      move('yaw', 2 * step);
      await new Promise(done => setTimeout(done, step === 1 ? 200 : 20));
    }
    let quiet = 0;
    while (quiet < 40) {
      await new Promise(done => setTimeout(done, 100));
      quiet = prompts.ended.length === prompts.started.length && prompts.started.length > before ? quiet + 1 : 0;
    }
    return prompts.started.length - before;
  });
  pictures.push(await page.evaluate(() => shown()));
  // A run that waits behind those of somebody else, and is deleted from the queue: the next move is shown all the same.
  await page.evaluate(async () => {
    const post = (path, body) => app.api.fetchApi(path, { method: 'POST', body: JSON.stringify(body) });
    const { output } = await app.graphToPrompt();
    for (let pitch = 1; pitch <= 4; pitch++) {
      const other = structuredClone(output);
      other[expression.id].inputs.pitch = pitch;
      await post('/prompt', { prompt: other, client_id: 'another', partial_execution_targets: [String(expression.id)] });
    }
    move('yaw', 9);
    const state = async () => (await app.api.fetchApi('/queue')).json();
    const waits = async () => (await state()).queue_pending.some(entry => entry[2][expression.id].inputs.yaw === 9);
    for (let tries = 0; tries < 200 && !await waits(); tries++) await new Promise(done => setTimeout(done, 10));
    await post('/queue', { clear: true });
    while ((await state()).queue_running.length) await new Promise(done => setTimeout(done, 50));
    await new Promise(done => setTimeout(done, 200));
  });
  pictures.push(await one('yaw', 11));
  const still = await page.evaluate(async () => {
    const before = prompts.started.length;
    move('live_preview', false);
    move('yaw', 0);
    await new Promise(done => setTimeout(done, 1500));
    return prompts.started.length - before;
  });
  const said = await complaints();
  await photograph('sliders');
  return { pictures, alone, burst, still, said, drawn: await page.evaluate(() => expression.imgs?.[0]?.naturalWidth ?? 0) };
}

/** Two nodes dragged from the node library onto an empty graph, and a link drawn by the mouse. */
async function build() {
  await page.evaluate(() => { app.graph.clear(); app.canvas.ds.reset(); app.nodeOutputs = {}; });      // no picture of an earlier node
  await page.getByRole('button', { name: 'Node Library' }).click();
  await page.getByRole('treeitem').getByText('RealPortrait', { exact: true }).click();
  for (const [title, x] of [['Load Face Vid2vid (LivePortrait)', 500], ['Extract Face Motion (Keypoints)', 1200]]) await drag(title, x, 300);
  await page.screenshot({ path: join(job.shots, 'library.png') });
  await page.getByRole('button', { name: 'Node Library' }).click();
  const [from, to] = await page.evaluate(() => {
    const frame = app.canvas.canvas.getBoundingClientRect();
    const node = type => app.graph._nodes.find(node => node.type === type);
    return [
      node('RealPortraitLoadVid2Vid').getOutputPos(0), node('RealPortraitExtractKeypoints').getInputPos(0),
    ].map(position => {
      const [x, y] = app.canvas.ds.convertOffsetToCanvas(position);
      return [x + frame.left, y + frame.top];
    });
  });
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(...to, { steps: 10 });
  await page.mouse.up();
  return page.evaluate(() => ({
    nodes: app.graph._nodes.map(node => node.type).sort(),
    links: [...app.graph.links.values()].map(link => [
      app.graph.getNodeById(link.origin_id).type, link.origin_slot, app.graph.getNodeById(link.target_id).type, link.target_slot,
    ]),
  }));
}

async function drag(title, x, y) {
  const entry = page.getByRole('treeitem').getByText(title, { exact: true });
  await entry.dragTo(page.locator('#graph-canvas'), { targetPosition: { x, y } });
  await page.waitForFunction(title => app.graph._nodes.some(node => node.title === title), title);
}

/** The subgraph dragged from the node library between three stock nodes: its widgets, and what is queued. */
async function subgraph() {
  await page.evaluate(() => { app.graph.clear(); app.canvas.ds.reset(); app.nodeOutputs = {}; });
  await page.getByRole('button', { name: 'Node Library' }).click();
  await page.getByRole('treeitem').getByText('Subgraph Blueprints', { exact: true }).click();
  await drag('Animate Portrait (Subgraph)', 900, 300);
  await page.getByRole('button', { name: 'Node Library' }).click();
  const widgets = await page.evaluate(() => {
    const [animate] = app.graph._nodes;
    const add = (type, x, y) => {
      const node = LiteGraph.createNode(type);
      node.pos = [animate.pos[0] + x, animate.pos[1] + y];
      return app.graph.add(node);
    };
    add('LoadImage', -450, 0).connect(0, animate, 0);
    add('LoadVideo', -450, 400).connect(0, animate, 1);
    animate.connect(0, add('SaveVideo', 500, 0), 0);
    return animate.widgets.map(widget => widget.label ?? widget.name);
  });
  const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);
  await photograph('subgraph');
  return { widgets, prompt, said: await complaints() };
}

/** Text and pictures of the help page that the info button of a selected node opens. */
async function help(type) {
  await page.evaluate(type => {
    const node = LiteGraph.createNode(type);
    app.graph.clear();
    app.canvas.ds.reset();
    node.pos = [600, 400];                              // its toolbox opens above it
    app.graph.add(node);
    app.canvas.selectItems([node]);
  }, type);
  await page.getByTestId('info-button').click();
  const panel = page.locator('.node-help-content');
  await panel.waitFor();
  await page.waitForTimeout(2000);
  const pictures = await panel.locator('img').evaluateAll(
    shown => shown.map(({ src, alt, naturalWidth }) => ({ path: new URL(src).pathname, alt, width: naturalWidth })),
  );
  return { type, text: await panel.innerText(), pictures };
}

/** Names of the nodes that the search box offers for a text. */
async function search(text) {
  await page.evaluate(() => app.graph.clear());
  await page.mouse.dblclick(VIEW.width / 2, VIEW.height / 2, { delay: 60 });
  await page.locator('input[id^=comfy-vue-node-search-box-input]').fill(text);
  const options = page.locator('.comfy-vue-node-search-container li[role=option]');
  await options.first().waitFor();
  await page.waitForTimeout(1000);                      // the list follows the text with a delay
  const names = (await options.allInnerTexts()).map(option => option.split('\n')[0].trim());
  await page.screenshot({ path: join(job.shots, 'search.png') });
  await page.keyboard.press('Escape');
  return names;
}

/** Which widgets of a sampler are greyed out, at its defaults, with 4 steps and with another speed. */
async function greyed() {
  return page.evaluate(() => {
    app.graph.clear();
    const node = LiteGraph.createNode('RealPortraitSampler');
    app.graph.add(node);
    const states = [];
    for (const [steps, speed] of [[0, 'exact'], [4, 'exact'], [4, 'balanced']]) {
      node.widgets.find(widget => widget.name === 'steps').value = steps;
      node.widgets.find(widget => widget.name === 'speed').value = speed;
      node.updateComputedDisabled();                    // as it does before it is drawn
      states.push(node.widgets.filter(widget => widget.computedDisabled).map(widget => widget.name));
    }
    return states;
  });
}

/** A node and its menu, by mouse, for a user whose language is Chinese; and that language's help page of another node. */
async function chinese() {
  await page.request.post(`${job.url}/api/settings/Comfy.Locale`, { data: '"zh"' });
  await open();
  const [title, place] = await page.evaluate(() => {
    const node = LiteGraph.createNode('RealPortraitMotionMaps');
    app.graph.clear();
    app.canvas.ds.reset();
    node.pos = [500, 200];
    app.graph.add(node);
    app.canvas.draw(true, true);
    const widget = node.widgets.find(widget => widget.name === 'mode');
    const frame = app.canvas.canvas.getBoundingClientRect();
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]);
    return [node.title, [x + frame.left, y + frame.top]];
  });
  await page.waitForTimeout(1000);
  await page.mouse.click(...place);
  await page.locator('.litemenu-entry').first().waitFor();
  const menu = await page.locator('.litemenu-entry').allInnerTexts();
  await page.locator('.litemenu-entry', { hasText: '（absolute）' }).click();
  const names = await page.evaluate(() => {
    const node = app.graph._nodes[0];
    const slots = slots => slots.filter(slot => !slot.widget).map(slot => slot.localized_name);
    return {
      inputs: [...slots(node.inputs), ...node.widgets.map(widget => widget.label)], outputs: slots(node.outputs),
      tooltip: node.constructor.nodeData.inputs.mode.tooltip,
    };
  });
  const [shown, value, queued] = await page.evaluate(async () => {
    const node = app.graph._nodes[0], widget = node.widgets.find(widget => widget.name === 'mode');
    return [widget._displayValue, widget.value, (await app.graphToPrompt()).output[node.id].inputs.mode];
  });
  await page.screenshot({ path: join(job.shots, 'chinese.png') });
  await load('chinese_workflow', job.workflows.animate_portrait);
  const groups = await page.evaluate(() => app.graph._groups.map(group => group.title));
  const shownHelp = await help('RealPortraitIDDPMSampler');
  await page.request.post(`${job.url}/api/settings/Comfy.Locale`, { data: '"en"' });
  return { title, ...names, menu, shown, value, queued, groups, help: shownHelp };
}
