// What pages do with a token, by the official JavaScript client: realtime sessions and a stream.
// What it heard is printed as one JSON object.
// Usage: node --experimental-websocket realtime.cjs, with EMULATOR_URL and FAL_KEY in the environment.

const { createFalClient } = require("@fal-ai/client");

const { EMULATOR_URL, FAL_KEY } = process.env;

const RealWebSocket = globalThis.WebSocket;
globalThis.WebSocket = class extends RealWebSocket {
  constructor(url, protocols) {
    const origin = EMULATOR_URL.replace(/^http/, "ws");
    super(String(url).replace(/^wss:\/\/fal\.run/, `${origin}/run`), protocols);
  }
};
console.warn = () => {};

const fal = createFalClient({
  credentials: FAL_KEY,
  fetch: (url, options) =>
    fetch(String(url).replace(/^https:\/\/fal\.run/, `${EMULATOR_URL}/run`), options),
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url.replace(/^https:\/\/rest(\.alpha)?\.fal\.ai/, `${EMULATOR_URL}/rest`),
  }),
});

function session(app, input, wanted) {
  return new Promise((resolve) => {
    const heard = { results: [], errors: [] };
    let isOver = false; // it reports its own close, which has no code, as an error
    const connection = fal.realtime.connect(app, {
      connectionKey: app,
      throttleInterval: 0,
      onResult: (result) => {
        heard.results.push(result);
        if (heard.results.length === wanted) finish();
        else connection.send({ ...input, n: heard.results.length });
      },
      onError: (error) => {
        if (isOver) return;
        heard.errors.push({ name: error.name, message: error.message, status: error.status });
        finish();
      },
    });
    function finish() {
      isOver = true;
      connection.close();
      resolve(heard);
    }
    connection.send({ ...input, n: 0 });
  });
}

async function streamed(app, input) {
  const events = [];
  const stream = await fal.stream(app, { input, connectionMode: "client" });
  for await (const event of stream) events.push(event);
  return events;
}

async function main() {
  const heard = {
    streamed: await streamed("acme/count", { to: 2 }),
    echo: await session("acme/live", { prompt: "a cat" }, 3),
    crash: await session("acme/crash", {}, 1),
    closed: await session("acme/closed", {}, 1),
  };
  process.stdout.write(JSON.stringify(heard), () => process.exit(0));
}

main();
