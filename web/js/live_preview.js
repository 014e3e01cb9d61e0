// Edit Expression: a move of a slider runs this node alone, so that its picture follows the sliders.
//
// One run at a time: while one is under way the newest values wait. Needs a frontend whose queuePrompt takes the nodes to run
// (ComfyUI 0.3.50 and later); an older one would run the whole workflow, so nothing happens there.
import { app } from '../../../scripts/app.js';
import { api } from '../../../scripts/api.js';

const NODE = 'RealPortraitEditExpression', SWITCH = 'live_preview';
const PAUSE = 100;                                      // ms from a move to its run, within which further moves count as one
const ENDS = ['execution_success', 'execution_error', 'execution_interrupted', 'reconnected'];      // the last: its end was not heard
// The class's own method: other packs wrap that of `api`, and what a wrapper passes on is not known.
const { queuePrompt } = Object.getPrototypeOf(api);
const takesNodes = queuePrompt?.length >= 3;            // an older frontend's would run the whole workflow

const waiting = new Set();                              // nodes that moved since their last run
let timer = null, running = null;                       // running: {id} of the prompt, null until the server has answered

function moved(node) {
  if (!node.widgets?.find(widget => widget.name === SWITCH)?.value) return;
  waiting.add(node);
  timer ??= setTimeout(next, PAUSE);
}

async function next() {
  timer = null;
  if (running || !waiting.size) return;
  const [node] = waiting;
  waiting.delete(node);
  if (!node.graph || node.mode !== 0) return next();    // deleted, muted or bypassed meanwhile
  const own = running = { id: null };
  try {
    own.id = await run(node);
  } catch (error) {
    console.warn('RealPortrait: no live preview.', error);
  }
  if (!own.id && running === own) {                     // refused
    running = null;
    next();
  }
}

/** Queues the node with what it needs, and gives the prompt's id; null where the prompt was refused. */
async function run(node) {
  const { output, workflow } = await app.graphToPrompt();
  const id = String(node.id);
  if (!output[id]) return null;                         // inside a subgraph, where it has another id
  const answer = await queuePrompt.call(api, 0, { output, workflow }, { partialExecutionTargets: [id] });
  return answer.prompt_id ?? null;
}

function ended({ detail }) {
  if (!running || (running.id && detail?.prompt_id && running.id !== detail.prompt_id)) return;
  running = null;
  next();
}

/** A prompt that is deleted from the queue has no end: it is over when the queue is empty. */
function queueChanged({ detail }) {
  if (running?.id && detail?.exec_info?.queue_remaining === 0) ended({});
}

app.registerExtension({
  name: 'RealPortrait.LivePreview',
  setup() {
    if (!takesNodes) return;
    for (const kind of ENDS) api.addEventListener(kind, ended);
    api.addEventListener('status', queueChanged);
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !takesNodes) return;
    for (const widget of node.widgets ?? []) {
      const before = widget.callback;
      widget.callback = function (...given) {
        const result = before?.apply(this, given);
        moved(node);
        return result;
      };
    }
  },
});
