// Fills in the form like a user, case by case, in a headless browser. Reads one JSON document from stdin and writes one to
// stdout; tests/consumers/form.rs describes both, and checks the results.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const { modules, chromium, schema, uiSchema, cases } = JSON.parse(readFileSync(0, 'utf8'))
const installed = createRequire(`${modules}/`)
const { buildSync } = installed('esbuild')
const playwright = installed('playwright-core')

const here = fileURLToPath(new URL('.', import.meta.url))
const built = buildSync({
  entryPoints: [`${here}page.jsx`],
  bundle: true,
  write: false,
  minify: true,
  nodePaths: [modules],
  define: { 'process.env.NODE_ENV': '"production"' },
  logLevel: 'error',
})

const browser = await playwright.chromium.launch({
  executablePath: chromium,
  timeout: 120_000,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
})
const problems = []

/** The form in a page of its own, as somebody finds it who has just opened it. */
const open = async params => {
  const page = await browser.newPage({ viewport: { width: 820, height: 900 } })
  page.setDefaultTimeout(120_000) // for machines that are busy with something else
  page.on('pageerror', error => problems.push(`${error}`))
  page.on('request', request => problems.push(`the page asked for ${request.url()}`))
  await page.setContent(readFileSync(`${here}page.html`, 'utf8'))
  await page.addScriptTag({ content: built.outputFiles[0].text })
  await page.evaluate(which => window.openForm(...which), [schema, uiSchema, params])
  await settled(page)
  return page
}

// A change is drawn in the next frame, and the form reacts after that.
const settled = page =>
  page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestIdleCallback(done, { timeout: 1000 }))))

const id = pointer => `root${pointer.replaceAll('/', '::')}`
const field = (page, pointer) => page.locator(`[id="${id(pointer)}"]`)
const press = async (page, list, title, index) =>
  (await page.evaluateHandle(which => window.listButton(...which), [id(list), title, index])).click()

const steps = {
  preset: (page, name) => page.selectOption('#presets', { label: name }),
  fill: (page, pointer, text) => field(page, pointer).fill(text),
  add: (page, list) => press(page, list, 'Add Item', -1),
  remove: (page, item) => {
    const [, list, index] = item.match(/^(.*)\/(\d+)$/)
    return press(page, list, 'Remove', Number(index))
  },
  tick: (page, pointer, label) => field(page, pointer).getByLabel(label, { exact: true }).check(),
  untick: (page, pointer, label) => field(page, pointer).getByLabel(label, { exact: true }).uncheck(),
  choose: async (page, pointer, title) => {
    await page.locator(`[name="${id(pointer)}__anyof_select"]`).click()
    await page.getByRole('option', { name: title, exact: true }).click()
  },
  pick: async (page, pointer, option) => {
    await page.locator(`[name="${id(pointer)}"]`).click()
    await page.getByRole('option', { name: option, exact: true }).click()
  },
  save: async page => {
    await page.evaluate(() => {
      delete window.happened.submitted
      delete window.happened.refused
    })
    await page.click('#save')
    await page.waitForFunction(() => window.happened.submitted || window.happened.refused || window.stopped().length > 0)
  },
  another: (page, params) => page.evaluate(which => window.openForm(...which), [schema, uiSchema, params]),
}

// With Roboto, the platform's font, which test machines do not have.
const take = async (page, picture) => {
  const face = weight => {
    const file = installed.resolve(`@fontsource/roboto/files/roboto-latin-${weight}-normal.woff2`)
    const data = readFileSync(file).toString('base64')
    return `@font-face { font-family: Roboto; font-weight: ${weight}; src: url(data:font/woff2;base64,${data}) }`
  }
  await page.addStyleTag({ content: [400, 500].map(face).join('\n') })
  await page.evaluate(async () => {
    document.activeElement.blur()
    document.body.style.zoom = 0.75
    await document.fonts.ready
  })
  await settled(page)
  await page.screenshot({ path: picture, clip: { x: 0, y: 0, width: 820, height: 1005 }, fullPage: true })
}

const outcomes = {}
for (const { name, params, does, picture } of cases) {
  try {
    const page = await open(params)
    for (const [step, ...details] of does) {
      await steps[step](page, ...details)
      await settled(page)
    }
    await steps.save(page)
    await settled(page)
    outcomes[name] = await page.evaluate(() => ({
      data: window.happened.data,
      submitted: window.happened.submitted ?? null,
      complaints: window.complaints(),
      stopped: window.stopped(),
    }))
    if (picture) await take(page, picture)
    await page.close()
  } catch (error) {
    problems.push(`${name}: ${error.message}`)
  }
}
await browser.close()
process.stdout.write(JSON.stringify({ outcomes, problems }))
