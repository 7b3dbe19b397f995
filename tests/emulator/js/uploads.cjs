// Uploads by the official JavaScript client; the URLs of the files are printed as one JSON object.
// Usage: node uploads.cjs, with EMULATOR_URL, PROXY_URL, FAL_KEY and SIZE (of the large file) in the environment.

const { createFalClient } = require("@fal-ai/client");

const { EMULATOR_URL, FAL_KEY, PROXY_URL, SIZE } = process.env;

const fal = createFalClient({
  credentials: FAL_KEY,
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url
      .replace(/^https:\/\/rest(\.alpha)?\.fal\.ai/, `${EMULATOR_URL}/rest`)
      .replace(/^https:\/\/fal\.run/, `${EMULATOR_URL}/run`),
  }),
});

async function main() {
  const lifecycle = { expiresIn: "1h", initialAcl: { default: "hide" } };
  const named = await fal.storage.upload(new File(["hello"], "a b.txt", { type: "text/plain" }), {
    lifecycle,
  });
  const unnamed = await fal.storage.upload(new Blob(["blob"], { type: "image/png" }));
  const large = await fal.storage.upload(
    new File([new Uint8Array(Number(SIZE)).fill(7)], "large.bin"),
    { lifecycle },
  );
  const output = await fal.run("acme/echo", {
    input: { deep: [{ image_url: new Blob(["input"], { type: "image/png" }) }] },
  });
  const page = createFalClient({ proxyUrl: { url: PROXY_URL, when: "always" } });
  const proxied = await page.storage.upload(new Blob(["proxied"], { type: "text/plain" }));
  const input = output.data.deep[0].image_url;
  console.log(JSON.stringify({ named, unnamed, large, input, proxied }));
}

main().catch((error) => {
  console.error(error, JSON.stringify(error.body));
  process.exit(1);
});
