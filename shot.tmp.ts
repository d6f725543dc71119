import { chromium } from "playwright-core";

const [base, out, ...pages] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
for (const [name, width, height, scheme] of [
  ["wide", 1440, 900, "light"],
  ["phone", 390, 844, "light"],
  ["wide", 1440, 900, "dark"],
  ["phone", 390, 844, "dark"],
] as const) {
  if (process.env.ONLY && process.env.ONLY !== `${name}-${scheme}`) continue;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, deviceScaleFactor: 1 });
  const page = await context.newPage();
  page.on("console", (m) => m.type() === "error" && console.log("console", m.text()));
  page.on("pageerror", (e) => console.log("pageerror", e.message, e.stack?.slice(0, 400)));
  for (const spec of pages) {
    const [label, hash] = spec.split("=", 2) as [string, string];
    await page.goto(`${base}/${spec.slice(label.length + 1)}`);
    await page.waitForTimeout(Number(process.env.WAIT ?? 2500));
    await page.screenshot({ path: `${out}/${label}-${name}-${scheme}.png`, fullPage: true });
  }
  await context.close();
}
await browser.close();
