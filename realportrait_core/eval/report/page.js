'use strict';
// The player. All rows of a case are tiles of one video. Each of its frames is taken once, and drawn from there to one canvas for each
// chosen row: they cannot be out of step, which they would be if each were drawn from a video that plays on meanwhile.
(() => {
  const { cases, metrics } = JSON.parse(document.getElementById('data').textContent);
  if (!cases.length) return;
  const at = id => document.getElementById(id);
  const SPEEDS = [...at('speed').options].map(option => +option.value);
  const GAIN = 4;                                       // of a difference to the truth
  const INPUTS = ['portrait', 'driving', 'driving video'];      // no results: they are not compared with the truth
  const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true, preload: 'auto' });
  let shown = null;                                     // the case
  const sheet = document.createElement('canvas');       // one frame of the video, all tiles
  let frame = 0;                                        // its number
  let target = 0;                                       // the last frame that was asked for: it may be on its way
  let wanted = null;                                    // the same, as long as it waits for an earlier one to arrive
  let late = 0;                                         // times that the picture of a seek was not there yet
  let address = null;                                   // of the case's video in memory
  const hidden = new Set();                             // rows that the reader switched off, in every case
  let panes = [];                                       // {tile, canvas, value} of the chosen rows

  const fill = (select, groups) => groups.forEach(([name, entries]) => {
    const parent = name ? select.appendChild(Object.assign(document.createElement('optgroup'), { label: name })) : select;
    entries.forEach(([value, text]) => parent.append(new Option(text, value)));
  });
  const make = (kind, text = '', parent = null) => {
    const element = Object.assign(document.createElement(kind), { textContent: text });
    parent?.append(element);
    return element;
  };
  const colourOf = tile => tile.colour === null ? '' : `var(--row-${tile.colour})`;

  // The case

  function open(id) {
    const play = !video.paused;
    shown = cases.find(entry => entry.id === id);
    video.pause();
    if (address) URL.revokeObjectURL(address);
    const bytes = Uint8Array.from(atob(at(`video-${id}`).textContent.trim()), character => character.charCodeAt(0));
    address = URL.createObjectURL(new Blob([bytes], { type: 'video/mp4' }));
    frame = target = sheet.width = 0;
    wanted = null;
    video.src = address;
    video.playbackRate = video.defaultPlaybackRate = +at('speed').value;
    at('case').value = id;
    at('seek').max = shown.frames - 1;
    const before = at('metric').value;
    at('metric').replaceChildren();
    const values = Object.values(shown.values);
    const there = metrics.filter(metric => values.some(row => row[metric.name]?.some(value => value !== null)));
    fill(at('metric'), [[null, there.map(metric => [metric.name, `${metric.title} ${metric.arrow}`.trim()])]]);
    const first = ['st_lpips', 'lpips', 'psnr_db', 'expression_l1'].find(name => there.some(metric => metric.name === name));
    at('metric').value = there.some(metric => metric.name === before) ? before : first ?? there[0]?.name ?? '';
    const truth = shown.tiles.some(tile => tile.name === 'truth');
    at('compare').disabled = !truth;
    at('compare-label').title = truth ? 'Between each row and the truth' : 'This case has no truth';
    lay();
    if (play) start();
  }

  // Rows

  function lay() {
    const rows = at('rows'), stage = at('stage');
    rows.replaceChildren(rows.querySelector('legend'));
    stage.replaceChildren();
    panes = [];
    shown.tiles.forEach(tile => {
      const label = make('label', '', rows);
      const box = Object.assign(make('input', '', label), { type: 'checkbox', checked: !hidden.has(tile.name) });
      label.append(tile.name);
      box.addEventListener('change', () => {
        hidden[box.checked ? 'delete' : 'add'](tile.name);
        lay();
        [...rows.querySelectorAll('input')][shown.tiles.indexOf(tile)].focus();
      });
      if (hidden.has(tile.name)) return;
      const figure = make('figure', '', stage), caption = make('figcaption');
      const canvas = Object.assign(make('canvas', '', figure), { width: shown.tile, height: shown.tile });
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', tile.name);
      figure.append(caption);
      make('span', tile.name, caption).style.setProperty('--colour', colourOf(tile));
      panes.push({ tile, canvas, value: make('span', '', caption) });
    });
    draw();
  }

  // Drawing

  /** Takes the frame that the video has, and its number. */
  function take(seconds) {
    if (video.readyState < 2) return;
    if (sheet.width !== video.videoWidth || sheet.height !== video.videoHeight) {
      [sheet.width, sheet.height] = [video.videoWidth, video.videoHeight];
    }
    const picture = 'VideoFrame' in window ? new VideoFrame(video) : video;     // the first says which frame it is
    sheet.getContext('2d').drawImage(picture, 0, 0);
    frame = frameAt(picture.timestamp === undefined ? seconds : picture.timestamp / 1e6);
    picture.close?.();
    draw();
  }

  function draw() {
    const compare = at('compare').checked && shown.tiles.find(tile => tile.name === 'truth');
    if (sheet.width) panes.forEach(pane => paint(pane, compare));
    const metric = metrics.find(entry => entry.name === at('metric').value);
    panes.forEach(({ tile, value }) => {
      const found = metric && shown.values[tile.name]?.[metric.name]?.[frame - shown.first];
      value.textContent = typeof found === 'number' ? found.toFixed(metric.digits).replace('-', '−') : '';
    });
    at('frame').value = `frame ${frame} of 0–${shown.frames - 1}`;
    at('seek').value = frame;
    plot(metric);
  }

  function paint({ tile, canvas }, compare) {
    const size = shown.tile, pen = canvas.getContext('2d');
    const copy = ([x, y], how) => {
      pen.globalCompositeOperation = how;
      pen.drawImage(sheet, x, y, size, size, 0, 0, size, size);
    };
    copy(tile.at, 'source-over');
    if (compare && tile !== compare && !INPUTS.includes(tile.name)) {
      copy(compare.at, 'difference');
      for (let gain = 1; gain < GAIN; gain *= 2) {      // the picture added to itself
        pen.globalCompositeOperation = 'lighter';
        pen.drawImage(canvas, 0, 0);
      }
    }
    pen.globalCompositeOperation = 'source-over';
  }

  /** The metric of each chosen row by frame, and where the video is. */
  function plot(metric) {
    const canvas = at('curve'), ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext('2d'), left = 8, right = 8, top = 8, bottom = 6;
    pen.scale(ratio, ratio);
    const x = i => left + (width - left - right) * i / Math.max(shown.frames - 1, 1);
    pen.fillStyle = style.getPropertyValue('--rule');
    pen.fillRect(x(frame) - 1, 0, 2, height);
    const lines = metric ? panes.map(({ tile }) => [tile, shown.values[tile.name]?.[metric.name] ?? []]) : [];
    const all = lines.flatMap(([, values]) => values).filter(value => value !== null);
    if (!all.length) return;
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const y = value => height - bottom - (height - top - bottom) * (high > low ? (value - low) / (high - low) : 0.5);
    lines.forEach(([tile, values]) => {
      pen.strokeStyle = pen.fillStyle = style.getPropertyValue(`--row-${tile.colour}`);
      pen.lineWidth = tile.colour === 0 ? 2 : 1.2;
      pen.beginPath();
      // Slow judges see some frames only: a line joins these, and a dot marks each.
      const seen = values.flatMap((value, i) => value === null ? [] : [[x(i + shown.first), y(value)]]);
      seen.forEach((point, i) => pen[i ? 'lineTo' : 'moveTo'](...point));
      pen.stroke();
      if (seen.length < values.length) seen.forEach(point => dot(pen, ...point, 2));
      const now = values[frame - shown.first];
      if (typeof now === 'number') dot(pen, x(frame), y(now), 3);
    });
  }

  function dot(pen, x, y, radius) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  }

  // Time

  const clamp = i => Math.min(Math.max(i, 0), shown.frames - 1);
  const frameAt = seconds => clamp(Math.floor(seconds * shown.fps + 0.25));       // of its start or its middle

  function seek(i) {
    video.pause();
    wanted = target = clamp(i);
    if (!video.seeking) go();
  }

  const step = by => seek((video.paused ? target : frame) + by);

  function go() {
    if (wanted === null) return;
    const next = wanted;
    wanted = null;
    video.currentTime = (next + 0.5) / shown.fps;       // the middle of the frame, away from both neighbours
  }

  function arrived() {
    if (wanted !== null) return go();
    take(video.currentTime);
    // On a busy machine the picture comes after the event.
    if (video.paused && !video.seeking && frame !== frameAt(video.currentTime) && late++ < 100) setTimeout(arrived, 20);
    else late = 0;
  }

  /** Whenever the browser has another frame to show. */
  function follow(_, { mediaTime }) {
    take(mediaTime);
    video.requestVideoFrameCallback(follow);
  }
  function followRoughly() {
    if (!video.paused && !video.seeking) arrived();
    requestAnimationFrame(followRoughly);
  }

  const start = () => video.play().catch(() => {});       // refused, or another case was opened meanwhile
  const toggle = () => {
    if (!video.paused) return video.pause();
    if (frame === shown.frames - 1) video.currentTime = 0;
    start();
  };
  const speed = by => {
    const i = SPEEDS.indexOf(+at('speed').value) + by;
    if (i in SPEEDS) at('speed').selectedIndex = i;
    at('speed').dispatchEvent(new Event('change'));
  };
  const move = by => open(cases[(cases.indexOf(shown) + by + cases.length) % cases.length].id);
  const flip = id => at(id).disabled || at(id).click();

  video.addEventListener('seeked', arrived);
  video.addEventListener('loadeddata', () => video.paused && seek(0));
  ['play', 'pause'].forEach(event => video.addEventListener(event, () => {      // they come late: what holds now counts
    at('play').textContent = video.paused ? 'Play' : 'Pause';
    if (video.paused && !video.seeking) seek(frame);
  }));
  if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(follow);
  else requestAnimationFrame(followRoughly);

  // Controls

  const tables = [...new Set(cases.map(entry => entry.table))];
  fill(at('case'), tables.map(table => [table, cases.filter(entry => entry.table === table).map(
    entry => [entry.id, entry.error ? `${entry.name} — ${entry.error}` : entry.name],
  )]));
  at('case').addEventListener('change', () => open(+at('case').value));
  at('earlier').addEventListener('click', () => move(-1));
  at('later').addEventListener('click', () => move(1));
  at('play').addEventListener('click', toggle);
  at('back').addEventListener('click', () => step(-1));
  at('on').addEventListener('click', () => step(1));
  at('seek').addEventListener('input', () => seek(+at('seek').value));
  at('metric').addEventListener('change', draw);
  at('compare').addEventListener('change', draw);
  at('speed').addEventListener('change', () => { video.playbackRate = +at('speed').value; });
  at('loop').addEventListener('change', () => { video.loop = at('loop').checked; });
  video.loop = at('loop').checked;
  const scrub = event => {
    if (!event.buttons) return;
    const { left, width } = at('curve').getBoundingClientRect();
    seek(Math.round((event.clientX - left - 8) / (width - 16) * (shown.frames - 1)));
  };
  at('curve').addEventListener('pointerdown', scrub);
  at('curve').addEventListener('pointermove', scrub);
  addEventListener('resize', () => draw());
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => draw());
  document.querySelectorAll('[data-play]').forEach(button => button.addEventListener('click', () => {
    open(+button.dataset.play);
    at('desk').scrollIntoView();
    at('play').focus({ preventScroll: true });
    start();
  }));

  // Keys: on the page itself and in the player, but where an element has its own use for them.
  const KEYS = {
    ' ': toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => seek(0), End: () => seek(shown.frames - 1),
    ',': () => speed(-1), '.': () => speed(1), l: () => flip('loop'), d: () => flip('compare'), n: () => move(1), p: () => move(-1),
  };
  const OWN = { button: [' '], checkbox: [' '], range: [' ', 'ArrowLeft', 'ArrowRight', 'Home', 'End'] };       // by type
  document.addEventListener('keydown', event => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || !(target === document.body || at('desk').contains(target))) return;
    if (target.tagName === 'SELECT' || OWN[target.type]?.includes(key)) return;
    const box = /^[1-9]$/.test(key) && at('rows').querySelectorAll('input')[key - 1];
    const act = box ? () => box.click() : KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  open(cases[0].id);
})();
