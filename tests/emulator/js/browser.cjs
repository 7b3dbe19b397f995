// The page of the example service in Chromium: each button is clicked, and its output is printed as one JSON object.
// Usage: node browser.cjs, with CHROMIUM, EMULATOR_URL, SERVICE_URL and TOKEN in the environment.

const { buildSync } = require("esbuild");
const { chromium } = require("playwright-core");

const { CHROMIUM, EMULATOR_URL, SERVICE_URL, TOKEN } = process.env;
const NAMES = ["run", "polling", "streaming", "stream", "upload", "live", "refused"];

// The official client as an ECMAScript module, as the page's CDN serves it.
const built = buildSync({
  stdin: { contents: 'export { fal } from "@fal-ai/client";', resolveDir: __dirname },
  bundle: true,
  format: "esm",
  platform: "browser",
  write: false,
});

async function main() {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error));
  page.on("requestfailed", (request) => console.error(request.url(), request.failure()));
  await page.route("https://esm.sh/**", (route) =>
    route.fulfill({
      contentType: "text/javascript",
      headers: { "access-control-allow-origin": "*" },
      body: built.outputFiles[0].text,
    }),
  );
  // Sessions do not use the proxy; only the platform's address is changed.
  await page.addInitScript((origin) => {
    const RealWebSocket = window.WebSocket;
    window.WebSocket = class extends RealWebSocket {
      constructor(url, protocols) {
        super(String(url).replace(/^wss:\/\/fal\.run/, `${origin}/run`), protocols);
      }
    };
  }, EMULATOR_URL.replace(/^http/, "ws"));
  await page.goto(`${SERVICE_URL}/login?token=${TOKEN}`);
  await page.waitForSelector("body[data-ready]");
  const seen = {};
  for (const name of NAMES) {
    await page.click(`#${name}`);
    await page.waitForFunction(() => document.getElementById("output").textContent !== "");
    seen[name] = JSON.parse(await page.textContent("#output"));
  }
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
