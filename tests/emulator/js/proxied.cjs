// Calls of the official JavaScript client through the proxy of this library; what they gave is printed as one JSON object.
// Usage: node --experimental-websocket proxied.cjs, with EMULATOR_URL and PROXY_URL in the environment.

const { createFalClient } = require("@fal-ai/client");

const { EMULATOR_URL, PROXY_URL } = process.env;

// Sessions do not use the proxy; only the platform's address is changed.
const RealWebSocket = globalThis.WebSocket;
globalThis.WebSocket = class extends RealWebSocket {
  constructor(url, protocols) {
    const origin = EMULATOR_URL.replace(/^http/, "ws");
    super(String(url).replace(/^wss:\/\/fal\.run/, `${origin}/run`), protocols);
  }
};
console.warn = () => {};

const proxyUrl = { url: PROXY_URL, when: "always" };
const withUser = (user) => ({
  proxyUrl,
  fetch: (url, options) => fetch(url, { ...options, headers: { ...options.headers, "x-user": user } }),
});
const fal = createFalClient(withUser("alice"));

async function failure(call) {
  try {
    return await call();
  } catch ({ name, status, body }) {
    return { name, status, body };
  }
}

async function waited(mode) {
  const logs = [];
  let last;
  const { data } = await fal.subscribe("acme/upper", {
    input: { text: "hello" },
    mode,
    logs: true,
    pollInterval: 10,
    onQueueUpdate: (update) => {
      last = update.status;
      logs.splice(0, logs.length, ...(update.logs ?? []).map((line) => line.message));
    },
  });
  return { data, logs, last };
}

function session() {
  return new Promise((resolve, reject) => {
    const connection = fal.realtime.connect("acme/live", {
      throttleInterval: 0,
      onResult: (result) => {
        resolve(result);
        connection.close();
      },
      onError: reject,
    });
    connection.send({ prompt: "a cat" });
  });
}

async function main() {
  const seen = { run: (await fal.run("acme/upper", { input: { text: "hello" } })).data };
  seen.polling = await waited("polling");
  seen.streaming = await waited("streaming");

  const stream = await fal.stream("acme/count", { input: { steps: 3 } });
  seen.events = [];
  for await (const event of stream) seen.events.push(event);

  const slow = await fal.queue.submit("acme/slow", { input: {}, priority: "low" });
  const requestId = slow.request_id;
  const mallory = createFalClient(withUser("mallory"));
  seen.foreign = await failure(() => mallory.queue.status("acme/slow", { requestId }));
  await fal.queue.cancel("acme/slow", { requestId });
  await fal.queue.subscribeToStatus("acme/slow", { requestId, pollInterval: 10 });
  seen.cancelled = (await failure(() => fal.queue.result("acme/slow", { requestId }))).status;

  const file = new File(["hello"], "a b.txt", { type: "text/plain" });
  seen.small = await fal.storage.upload(file);
  seen.large = await fal.storage.upload(new File([new Uint8Array(91 * 2 ** 20)], "large.bin"));
  seen.live = await session();
  seen.refused = await failure(() => fal.run("acme/secret", { input: {} }));
  seen.anonymous = await failure(() => createFalClient({ proxyUrl }).run("acme/upper", { input: {} }));
  seen.invalid = await failure(() => fal.run("acme/upper", { input: { text: 5 } }));
  process.stdout.write(JSON.stringify(seen), () => process.exit(0));
}

main().catch((error) => {
  console.error(error, error.body);
  process.exit(1);
});
