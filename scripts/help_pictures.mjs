// Photographs nodes as they stand in ComfyUI's graph, in a Chromium without a window.
//
//     node --input-type=module - JOB.json < help_pictures.mjs       in a folder whose node_modules/ has both imports
//
// The job: {url, nodes: [type], folder}, the folder's path being absolute. Each node's picture goes to FOLDER/TYPE.png.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import chromium from '@sparticuz/chromium';
import { chromium as launcher } from 'playwright-core';

const LIMIT = 300_000;                                  // ms, on a slow machine
const VIEW = { width: 1400, height: 1200 };             // px
const CORNER = [420, 260];                              // px of the view where a node's corner is put, clear of the page's controls
const NODE_WIDTH = 380, SCALE = 1.5, EDGE = 4;  // units of the graph; px per unit; px around the node, below its badge
const SETTINGS = {                                      // of a user who has been here before
  'Comfy.TutorialCompleted': true, 'Comfy.Minimap.Visible': false, 'Comfy.Graph.CanvasInfo': false,
  'Comfy.Graph.CanvasMenu': false,
};

const job = JSON.parse(readFileSync(process.argv.at(-1)));
const browser = await launcher.launch({
  executablePath: await chromium.executablePath(),
  args: [...chromium.args.filter(argument => argument !== '--single-process'), '--no-sandbox'],
});
try {
  const page = await browser.newPage({ viewport: VIEW });
  page.setDefaultTimeout(LIMIT);
  for (const [name, data] of Object.entries(SETTINGS)) {
    await page.request.post(`${job.url}/api/settings/${name}`, { data: JSON.stringify(data) });
  }
  await page.goto(job.url);
  await page.waitForFunction(
    types => window.app?.graph?._nodes.length && types.every(type => LiteGraph.registered_node_types[type]), job.nodes,
  );
  for (const type of job.nodes) {
    await page.evaluate(alone, type);
    await page.waitForTimeout(700);                     // a picture that it shows comes later, and takes its room
    const clip = await page.evaluate(place, [CORNER, NODE_WIDTH, SCALE, EDGE]);
    await page.waitForTimeout(700);                     // it is drawn with the next frames
    await page.screenshot({ path: join(job.folder, `${type}.png`), clip });
  }
} finally {
  await browser.close();
}

/** In the page: the graph is this node and nothing else. */
function alone(type) {
  app.graph.clear();
  app.graph.add(LiteGraph.createNode(type));
}

/** In the page: puts the node into the view; returns where it lies there. */
function place([corner, width, scale, edge]) {
  const [node] = app.graph._nodes;
  const [least, height] = node.computeSize();
  node.setSize([Math.max(width, least), height]);
  node.pos = [0, LiteGraph.NODE_TITLE_HEIGHT];
  const frame = app.canvas.canvas.getBoundingClientRect();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [(corner[0] - frame.left) / scale, (corner[1] - frame.top) / scale];
  app.canvas.setDirty(true, true);
  return {
    x: corner[0] - edge, y: corner[1] - edge,
    width: node.size[0] * scale + 2 * edge, height: (node.size[1] + LiteGraph.NODE_TITLE_HEIGHT) * scale + 2 * edge,
  };
}
