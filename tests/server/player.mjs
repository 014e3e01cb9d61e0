// Drives the player of an evaluation's report in a Chromium without a window, and writes down what is to be seen there.
//
//     node --input-type=module - JOB.json < player.mjs        in a folder whose node_modules/ has both imports
//
// The job: {page, seen, shot}, paths being absolute. Frames are told by their grey, which the test has put there.
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import chromium from '@sparticuz/chromium';
import { chromium as launcher } from 'playwright-core';

const LIMIT = 60_000;                                   // ms, on a slow machine
const job = JSON.parse(readFileSync(process.argv.at(-1)));
chromium.setGraphicsMode = false;                       // no WebGL: the page does not use it, and on a CPU it costs as much again
const browser = await launcher.launch({
  executablePath: await chromium.executablePath(),
  args: [...chromium.args.filter(argument => argument !== '--single-process'), '--no-sandbox'],
});
const seen = { errors: [], asked: [] };

try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
  page.setDefaultTimeout(LIMIT);
  page.on('pageerror', error => seen.errors.push(String(error)));
  page.on('console', message => message.type() === 'error' && seen.errors.push(message.text()));
  page.on('request', request => seen.asked.push(request.url().slice(0, 40)));
  await page.addInitScript(() => { window.greys = () => ({
    frame: +document.getElementById('seek').value,
    rows: Object.fromEntries([...document.querySelectorAll('#stage canvas')].map(canvas => [
      canvas.getAttribute('aria-label'), [...canvas.getContext('2d').getImageData(128, 128, 1, 1).data.slice(0, 3)],
    ])),
    values: Object.fromEntries([...document.querySelectorAll('#stage figcaption')].map(
      caption => [caption.firstChild.textContent, caption.lastChild.textContent],
    )),
  }); });
  await page.goto(pathToFileURL(job.page).href);

  /** What each canvas shows, when the frame on show is the one named; null: whichever. */
  const state = async frame => {
    if (frame !== null) {
      await page.waitForFunction(frame => document.getElementById('frame').value.startsWith(`frame ${frame} of`), frame);
    }
    return page.evaluate(() => window.greys());
  };
  const drawn = () => page.waitForFunction(() => document.querySelector('#stage canvas').getContext('2d').getImageData(9, 9, 1, 1).data[3]);

  await drawn();
  seen.cases = await page.locator('#case option').allTextContents();
  seen.start = await state(0);
  await page.getByRole('button', { name: 'One frame on' }).click();
  seen.step = await state(1);
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  seen.keys = await state(3);
  await page.keyboard.press('End');
  seen.end = await state(7);
  await page.getByRole('button', { name: 'One frame back' }).click();
  seen.back = await state(6);
  await page.locator('#seek').fill('2');
  seen.seek = await state(2);

  await page.getByLabel('Difference').check();
  seen.difference = await state(2);
  await page.getByLabel('Difference').uncheck();
  await page.locator('#rows').getByLabel('portrait', { exact: true }).uncheck();
  seen.fewer = await state(2);

  // Played, in a loop: at every frame of the page all canvases show one and the same frame of the video.
  await page.evaluate(() => {
    window.played = [];
    const look = () => {
      window.played.push(window.greys());
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  await page.locator('#speed').selectOption('2');
  await page.getByRole('button', { name: 'Play', exact: true }).first().click();
  await page.waitForTimeout(4000);
  await page.keyboard.press('Space');
  await page.waitForFunction(() => document.getElementById('play').textContent === 'Play');
  seen.played = await page.evaluate(() => window.played);

  await page.keyboard.press('n');
  await drawn();
  seen.next = await state(0);
  await page.locator('[data-play]').first().click();
  await page.waitForFunction(() => document.getElementById('play').textContent === 'Pause');
  seen.chosen = await page.locator('#case').inputValue();
  await page.screenshot({ path: job.shot });

  await page.setViewportSize({ width: 390, height: 844 });
  seen.wide = await page.evaluate(() => document.documentElement.scrollWidth);
} finally {
  writeFileSync(job.seen, JSON.stringify(seen));
  await browser.close();
}
