// Builds a graph in ComfyUI by mouse and keyboard alone, in a Chromium without a window, and photographs every step.
//
//     node --input-type=module - JOB.json < recording.mjs       in a folder whose node_modules/ has both imports
//
// The job: {url, folder}, the folder's path being absolute. The pictures go to FOLDER/1.png, 2.png, ..., and what they show to
// FOLDER/steps.json: [{file, caption, pointer: [x, y]}]. A step that does not do what its caption says ends it with an error.
// The page is only read by scripts, never changed by them: where a node lies, what is wired, what ran, which picture is shown.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import chromium from '@sparticuz/chromium';
import { chromium as launcher } from 'playwright-core';

const LIMIT = 600_000;                                  // ms for anything on the page, a run included, on a slow machine
const VIEW = { width: 960, height: 700 };              // px
const LIBRARY = 345;                                    // px, the right edge of the node library when it is open
const SETTINGS = {                                      // of a user who has been here before
  'Comfy.TutorialCompleted': true, 'Comfy.Minimap.Visible': false, 'Comfy.Graph.CanvasInfo': false,
  'Comfy.Graph.CanvasMenu': false,
};
const VID2VID = 'RealPortraitLoadVid2Vid', PORTRAIT = 'RealPortraitLoadPortrait', EDIT = 'RealPortraitEditExpression';
const DRIVING = 'RealPortraitLoadDrivingVideo', ANIMATE = 'RealPortraitAnimate', SAVE = 'SaveVideo';

const job = JSON.parse(readFileSync(process.argv.at(-1)));
const browser = await launcher.launch({
  executablePath: await chromium.executablePath(),
  args: [...chromium.args.filter(argument => argument !== '--single-process'), '--no-sandbox'],
});
const page = await browser.newPage({ viewport: VIEW });
page.setDefaultTimeout(LIMIT);
const steps = [], queued = [];                          // queued: the nodes that each prompt was to run, null for all
let pointer = [VIEW.width / 2, VIEW.height / 2];        // where the mouse is
page.on('request', request => {
  if (request.method() === 'POST' && request.url().endsWith('/prompt')) {
    queued.push(request.postDataJSON().partial_execution_targets ?? null);
  }
});

try {
  await open();
  await search();
  await dragFromLibrary();
  await connect();
  await run();
  await slide();
  await animate();
} catch (error) {
  await page.screenshot({ path: join(job.folder, 'failed.png') });
  throw error;
} finally {
  await browser.close();
}
writeFileSync(join(job.folder, 'steps.json'), JSON.stringify(steps));

// The steps

/** An empty workflow, a little smaller than life. */
async function open() {
  for (const [name, data] of Object.entries(SETTINGS)) {
    await page.request.post(`${job.url}/api/settings/${name}`, { data: JSON.stringify(data) });
  }
  await page.goto(job.url);
  await page.waitForFunction(type => window.app?.graph?._nodes.length && LiteGraph.registered_node_types[type], EDIT);
  await page.evaluate(() => {
    window.ended = [];
    app.api.addEventListener('b_preview', () => { window.previews++; });
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted']) {
      app.api.addEventListener(kind, event => window.ended.push({ kind, detail: event.detail }));
    }
  });
  const notice = page.locator('button:has([class*="lucide--x"])').first();
  if (await notice.isVisible()) await notice.click();   // of some frontends, across the page's top
  await blank();
  await away(1);
}

/** A double click opens the search; what is chosen there comes into the graph where it was opened. */
async function search() {
  await find('live portrait', [365, 125]);
  const chosen = answers().filter({ hasText: 'Load Face Vid2vid (LivePortrait)' });
  await moveTo(await middle(chosen));
  await photograph('A double click on the empty graph: "live portrait" finds the nodes.');
  await click();
  await nodes(VID2VID);
}

/** Nodes come from the library's category of this pack. */
async function dragFromLibrary() {
  await library();
  await drag(await middle(page.locator('.p-splitter-gutter').first()), [LIBRARY, 400]);
  await category().click();
  await drop('Load Portrait', [365, 310]);
  await drop('Edit Expression (Sliders)', [690, 125]);
  await nodes(VID2VID, PORTRAIT, EDIT);
  await category().scrollIntoViewIfNeeded();
  await photograph('Nodes are dragged from the node library; Load Portrait brings an example.');
  await library();
}

async function connect() {
  await drag([650, 650], [400, 650]);                   // the empty graph: what is seen of it moves along
  await wire(VID2VID, 'vid2vid', EDIT, 'vid2vid');
  await wire(PORTRAIT, 'image', EDIT, 'portrait', 'Two wires are drawn from socket to socket.');
}

async function run() {
  await runAll();
  await picture(EDIT);
  await moveTo([850, 400]);                             // the node grows for its picture when it is drawn again, as by this
  await photograph('Run: Edit Expression shows the portrait as Face Vid2vid draws it.');
}

/** The picture follows the sliders. */
async function slide() {
  await slider('yaw', 20, 'A slider is dragged: the head turns while the mouse button is still down.');
  await slider('mouth', 0.8, 'Each move of a slider runs this node alone; Run is not pressed.');
}

/** A second workflow, which makes a video. */
async function animate() {
  await blank();
  await away(2);
  await library();
  await category().click();
  await drop('Load Driving Video', [355, 150]);
  await drop('Load Portrait', [577, 330]);
  await drop('Animate Portrait', [800, 150]);
  await library();
  await drag([650, 670], [367, 670]);
  await find('save video', [738, 200]);
  await moveTo(await middle(answers().filter({ hasText: 'Save Video' }).first()));
  await click();
  await nodes(PORTRAIT, DRIVING, ANIMATE, SAVE);
  await choose(DRIVING, 'file', 'example: driving.mp4');
  await wire(PORTRAIT, 'image', ANIMATE, 'portrait');
  await wire(DRIVING, 'video', ANIMATE, 'driving_video');
  await wire(ANIMATE, 'video', SAVE, 'video');
  await runAll('A second graph makes a video: four nodes, three wires, and Run.');
  const video = page.locator('video[src*="type=output"]');
  await video.waitFor();
  await moveTo(await middle(video));
  await click();                                        // plays it
  await page.waitForFunction(video => video.currentTime > 0.5, await video.elementHandle());
  await moveTo([700, 640]);
  await click();                                        // the node is selected no longer: its toolbox lay over the others
  await moveTo(await middle(video));
  await photograph('The portrait moves as the driving video does. (The bundled weights, 256 px.)');
}

// Hands

async function moveTo(place) {
  pointer = place;
  await page.mouse.move(...place, { steps: 8 });
}

/** Of something on the page. */
async function middle(locator) {
  await locator.scrollIntoViewIfNeeded();
  const { x, y, width, height } = await locator.boundingBox();
  return [x + width / 2, y + height / 2];
}

/** Where the pointer is, for as long as a finger takes. */
async function click() {
  await page.mouse.down();
  await page.waitForTimeout(80);
  await page.mouse.up();
}

async function drag(from, to) {
  await moveTo(from);
  await page.mouse.down();
  await moveTo(to);
  await page.mouse.up();
}

/** Makes a workflow without nodes. */
async function blank() {
  await page.getByRole('button', { name: 'Create a new blank workflow' }).click();
  await nodes();
}

/** Turns the wheel above the graph, which becomes smaller: by a tenth with each notch. */
async function away(notches) {
  await moveTo([700, 400]);
  for (let notch = 0; notch < notches; notch++) {
    await page.mouse.wheel(0, 100);
    await page.waitForTimeout(300);
  }
}

/** Opens the node library, or closes it. */
async function library() {
  await page.getByRole('button', { name: 'Node Library' }).click();
}

/** Opens the search at a place of the graph and types; its first answers are there then. */
async function find(text, place) {
  await moveTo(place);
  await page.mouse.dblclick(...place, { delay: 60 });
  await page.locator('input[id^=comfy-vue-node-search-box-input]').waitFor();
  await page.keyboard.type(text, { delay: 60 });
  await page.waitForTimeout(1500);                      // the list follows the text with a delay
}

/** What the open search offers. */
function answers() {
  return page.locator('.comfy-vue-node-search-container li[role=option]');
}

/** The folder of this pack in the open library. */
function category() {
  return page.getByRole('treeitem').getByText('RealPortrait', { exact: true });
}

/** Drags a node from the library to a place on the page. */
async function drop(title, place) {
  const entry = page.getByRole('treeitem').getByText(title, { exact: true });
  const { x, y } = await page.locator('#graph-canvas').boundingBox();
  await entry.dragTo(page.locator('#graph-canvas'), { targetPosition: { x: place[0] - x, y: place[1] - y } });
  await page.waitForFunction(title => app.graph._nodes.some(node => node.title === title), title);
  pointer = place;
}

/** Draws a wire from an output to an input; with a caption it is photographed on the way. */
async function wire(from, output, to, input, caption) {
  await moveTo(await place(from, 'output', output));
  await page.mouse.down();
  const [x, y] = await place(to, 'input', input);
  if (caption) {
    await moveTo([x - 25, y + 20]);
    await photograph(caption);
  }
  await moveTo([x, y]);
  await page.mouse.up();
  const found = await page.evaluate(([from, to]) => [...app.graph.links.values()].some(link => {
    const [origin, target] = [app.graph.getNodeById(link.origin_id), app.graph.getNodeById(link.target_id)];
    return origin.type === from[0] && origin.outputs[link.origin_slot].name === from[1]
      && target.type === to[0] && target.inputs[link.target_slot].name === to[1];
  }), [[from, output], [to, input]]);
  check(found, `no wire from ${from} ${output} to ${to} ${input}`);
}

/** Chooses from the menu of a node's widget. */
async function choose(type, name, option) {
  await moveTo(await widget(type, name));
  await click();
  await page.locator('.litemenu-entry').getByText(option, { exact: true }).click();
  const value = await page.evaluate(([type, name]) => (
    app.graph._nodes.find(node => node.type === type).widgets.find(widget => widget.name === name).value
  ), [type, name]);
  check(value === option, `${type}: ${name} is ${value}`);
}

/** Presses Run, and waits for the end; with a caption it is photographed once the sampler shows a preview. */
async function runAll(caption) {
  const before = queued.length;
  await moveTo(await middle(page.getByTestId('queue-button')));
  await page.evaluate(() => { window.previews = 0; });
  await click();
  if (caption) {
    await page.waitForFunction(ended => window.previews > 1 || window.ended.length > ended, before);
    await photograph(caption);
  }
  await quiet(before);
  check(queued.length === before + 1 && queued[before] === null, `Run queued ${JSON.stringify(queued.slice(before))}`);
  await page.getByText('job completed').waitFor({ state: 'hidden', timeout: 20_000 }).catch(() => {});      // lies over the graph
}

/** Drags a slider of Edit Expression from 0 to a value; photographed before the button is released. */
async function slider(name, value, caption) {
  const [before, prompts] = [await picture(EDIT), queued.length];
  const [from, to] = [await widget(EDIT, name, 0), await widget(EDIT, name, value)];
  await moveTo(from);
  await page.mouse.down();
  for (let step = 1; step <= 8; step++) {
    await moveTo([from[0] + (to[0] - from[0]) * step / 8, from[1]]);
    await page.waitForTimeout(80);
  }
  await quiet(prompts);
  const [id, reached] = await page.evaluate(([type, name]) => {
    const node = app.graph._nodes.find(node => node.type === type);
    return [String(node.id), node.widgets.find(widget => widget.name === name).value];
  }, [EDIT, name]);
  check(Math.abs(reached - value) < 0.1 * Math.abs(value), `${name} is ${reached}`);
  check(queued.slice(prompts).every(targets => String(targets) === id), `queued: ${JSON.stringify(queued.slice(prompts))}`);
  check(!before.file.equals((await picture(EDIT, before.source)).file), `${name}: the picture is the same`);
  await photograph(caption);
  await page.mouse.up();
  await quiet(prompts);
}

// Eyes

function check(holds, text) {
  if (!holds) throw new Error(text);
}

/** The graph has just these nodes. */
async function nodes(...types) {
  await page.locator('.comfy-vue-node-search-container').waitFor({ state: 'hidden' });
  const found = () => page.evaluate(() => app.graph._nodes.map(node => node.type));
  for (let tries = 0; tries < 50 && (await found()).length !== types.length; tries++) await page.waitForTimeout(100);
  check(String((await found()).sort()) === String(types.sort()), `nodes: ${await found()}`);
}

/** Where a socket lies on the page. */
async function place(type, kind, name) {
  const found = await page.evaluate(([type, kind, name]) => {
    const node = app.graph._nodes.find(node => node.type === type);
    const slot = node[`${kind}s`].findIndex(slot => slot.name === name);
    if (slot < 0) return null;
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(kind === 'input' ? node.getInputPos(slot) : node.getOutputPos(slot));
    const frame = app.canvas.canvas.getBoundingClientRect();
    return [x + frame.left, y + frame.top];
  }, [type, kind, name]);
  check(found, `${type} has no ${kind} ${name}`);
  return found;
}

/** Where a node's widget lies on the page: its middle, or a slider's value. */
async function widget(type, name, value = null) {
  return page.evaluate(([type, name, value]) => {
    const node = app.graph._nodes.find(node => node.type === type);
    const widget = node.widgets.find(widget => widget.name === name);
    const { min, max } = widget.options, edge = 15;     // units of the graph on both sides of a slider
    const share = value === null ? 0.5 : (value - min) / (max - min);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([
      node.pos[0] + edge + share * (node.size[0] - 2 * edge), node.pos[1] + widget.last_y + LiteGraph.NODE_WIDGET_HEIGHT / 2,
    ]);
    const frame = app.canvas.canvas.getBoundingClientRect();
    return [x + frame.left, y + frame.top];
  }, [type, name, value]);
}

/** Waits until more prompts than these were queued and all have ended, and well. */
async function quiet(prompts) {
  for (let still = 0, begun = Date.now(); still < 5;) {
    await page.waitForTimeout(100);
    const ended = await page.evaluate(() => window.ended);
    const bad = ended.find(({ kind }) => kind !== 'execution_success');
    check(!bad, `the run ended: ${JSON.stringify(bad)}`);
    check(Date.now() - begun < LIMIT, `${queued.length} prompts were queued, ${ended.length} ended`);
    still = queued.length > prompts && ended.length === queued.length ? still + 1 : 0;
  }
}

/** The picture that a node shows, once it is another one than that from `old`. */
async function picture(type, old = '') {
  const found = await page.waitForFunction(([type, old]) => {
    const [image] = app.graph._nodes.find(node => node.type === type).imgs ?? [];
    return image?.naturalWidth && image.src !== old && image.src;
  }, [type, old]);
  const source = await found.jsonValue();
  return { source, file: await (await page.request.get(source)).body() };
}

async function photograph(caption) {
  await page.waitForTimeout(700);                       // the canvas is drawn with the next frames, a node's picture comes later
  const file = `${steps.length + 1}.png`;
  await page.screenshot({ path: join(job.folder, file) });
  steps.push({ file, caption, pointer });
}
